# flowd: what a person types. Each target installs what it needs on Debian, as
# root, or says in one line what to install.

SHELL := /bin/sh
GO    ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

# Tools of exact versions, run from the module cache.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0

KERNELS ?= 6.1,6.12,sid
# Packages whose tests need a kernel that the machine may not have.
IN_VM   := ./ct ./nft ./testenv/vm ./cmd/flowd

.PHONY: all build demo test lint unit vm bench generate clean install

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/flowd ./cmd/flowctl

# The main job on real traffic: a router, accelerated, and what flowctl shows of it.
demo:
	@testenv/needs
	@testenv/demo

# Everything that CI runs.
test: lint unit vm

lint:
	@testenv/needs
	$(GO) mod verify >/dev/null
	$(GO) vet ./...
	$(GO) vet -tags kernel,warp ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(STATICCHECK) -tags kernel,warp ./...
	@out=$$($(GO) run $(GOFUMPT) -l .); [ -z "$$out" ] || { echo "not gofumpt-ed:"; echo "$$out"; exit 1; }
	shellcheck testenv/lab testenv/demo testenv/demo-router testenv/needs .ci/run
	shellcheck -s sh -e SC1091 testenv/vm/init.sh

# Includes the fuzz targets' seeds. -count=1: tests that build and run the programs
# would be taken from go's cache, which does not see what those are made of.
unit:
	@testenv/needs
	$(GO) test -race -count=1 ./...

# The same kernels for everybody: stock Debian, in QEMU. Tests that wait for minutes are
# run where idle time passes at once.
vm:
	@testenv/needs
	$(GO) run ./testenv/cmd/vmtest -kernels $(KERNELS) $(IN_VM)
	$(GO) run ./testenv/cmd/vmtest -warp -kernels $(KERNELS) ./cmd/flowd

# The flow table at a million flows; "make bench BENCHFLAGS=-huge" at four million too.
bench:
	$(GO) test ./flow -run '^$$' -bench . -benchmem -args $(BENCHFLAGS)

generate:
	$(GO) generate ./...

clean:
	rm -rf bin

# For packagers: DESTDIR and PREFIX as usual.
PREFIX ?= /usr
install: build
	install -Dm755 -t $(DESTDIR)$(PREFIX)/sbin bin/flowd
	install -Dm755 -t $(DESTDIR)$(PREFIX)/bin bin/flowctl
	install -Dm644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system systemd/flowd.service
	install -Dm644 systemd/flowd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/flowd.conf
	install -Dm644 systemd/flowd.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/flowd.conf
	install -Dm644 -t $(DESTDIR)/etc/flowd systemd/flowd.toml
