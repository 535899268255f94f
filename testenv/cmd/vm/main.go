// Command vm boots a kernel, runs one command in it and exits with its exit code.
//
//	go run ./testenv/cmd/vm -kernel 6.12 [-file HOST:GUEST]... [-out DIR] -- COMMAND [ARGUMENT...]
//
// One argument with spaces is taken as a script of sh; several are one command. What the
// command leaves in the guest's /out is copied to -out. Exit code 125: there was no guest,
// or it did not come to its end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"flowd/testenv/vm"
)

// exitNoGuest is the exit code if the command's own is not to be had, as with env(1) and docker.
const exitNoGuest = 125

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	signal.Ignore(syscall.SIGPIPE) // an error of the write instead
	code, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	os.Exit(code)
}

func run(ctx context.Context) (int, error) {
	job := vm.Job{Stdout: os.Stdout, Files: map[string]string{}, Env: map[string]string{}}
	cache := &vm.Cache{Log: os.Stderr}
	kernel := flag.String("kernel", "6.12", "one of "+strings.Join(vm.Names, ", "))
	dmesg := flag.Bool("dmesg", false, "print the kernel's warnings and boot time on standard error at the end")
	flag.BoolVar(&cache.Refresh, "refresh", false, "look for newer packages")
	flag.StringVar(&job.Out, "out", "", "host `folder` for what the command leaves in /out")
	flag.StringVar(&job.Append, "append", "", "more of the kernel's command line")
	flag.IntVar(&job.Memory, "mem", 1024, "memory of the guest in MiB")
	flag.IntVar(&job.CPUs, "cpus", 0, "processors of the guest (default 2, with -warp 1)")
	flag.BoolVar(&job.Warp, "warp", false, "time jumps where the guest would wait")
	flag.DurationVar(&job.Timeout, "timeout", 5*time.Minute, "for the guest, from power on to power off, by the host's clock")
	flag.Func("file", "`HOST:GUEST` file or folder to put into the guest (repeatable)", pair(job.Files, ":", true))
	flag.Func("env", "`NAME=VALUE` for the command (repeatable)", pair(job.Env, "=", false))
	flag.Parse()
	if job.Script = script(flag.Args()); job.Script == "" {
		flag.Usage()
		return 2, errors.New("no command")
	}
	if job.Out != "" {
		if err := os.MkdirAll(job.Out, 0o755); err != nil {
			return exitNoGuest, err
		}
	}
	k, err := cache.Prepare(ctx, *kernel)
	if err != nil {
		return exitNoGuest, err
	}
	res, err := k.Run(ctx, job)
	if err != nil || *dmesg {
		fmt.Fprint(os.Stderr, res.Console)
		fmt.Fprintf(os.Stderr, "vm: %s, script started after %.1fs, power off after %.1fs\n",
			k.Release, res.Boot.Seconds(), res.Total.Seconds())
	}
	if err != nil {
		return exitNoGuest, err
	}
	return res.ExitCode, nil
}

// script makes a script of sh out of the command line.
func script(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = vm.Quote(a)
	}
	return strings.Join(words, " ")
}

// pair parses A:B into m[B] = A (swapped), or A=B into m[A] = B.
func pair(m map[string]string, sep string, swapped bool) func(string) error {
	return func(s string) error {
		a, b, ok := strings.Cut(s, sep)
		if !ok || a == "" {
			return fmt.Errorf("want two parts with %q between", sep)
		}
		if swapped {
			a, b = b, a
		}
		m[a] = b
		return nil
	}
}
