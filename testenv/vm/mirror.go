package vm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// debianSuites are the names under which a Debian mirror keeps its releases.
// An entry of the machine's sources with one of them and the component main
// names a mirror from which other releases can be had too.
var debianSuites = []string{
	"oldoldstable", "oldstable", "stable", "testing", "unstable", "sid",
	"bullseye", "bookworm", "trixie", "forky", "duke",
}

var errNoMirror = errors.New("no Debian mirror in the sources of apt")

// source is one line or stanza of apt's sources: sources.list(5).
type source struct {
	uris, suites, components []string
}

// findMirror returns the address of the Debian mirror that the machine itself uses,
// from the sources below dir (/etc/apt).
func findMirror(dir string) (string, error) {
	var all []source
	names := []string{filepath.Join(dir, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, err := filepath.Glob(filepath.Join(dir, "sources.list.d", pattern))
		if err != nil {
			return "", fmt.Errorf("apt sources in %s: %w", dir, err)
		}
		names = append(names, more...)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("apt sources: %w", err)
		}
		if strings.HasSuffix(name, ".sources") {
			all = append(all, parseStanzas(text)...)
		} else {
			all = append(all, parseList(text)...)
		}
	}
	return chooseMirror(all)
}

// chooseMirror prefers an address that ends in /debian, as nearly all mirrors do,
// over third parties that have named their suites after Debian's.
func chooseMirror(all []source) (string, error) {
	var found []string
	for _, s := range all {
		isDebian := func(suite string) bool { return slices.Contains(debianSuites, suite) }
		if slices.ContainsFunc(s.suites, isDebian) && slices.Contains(s.components, "main") {
			found = append(found, s.uris...)
		}
	}
	for _, uri := range found {
		if path.Base(uri) == "debian" {
			return uri, nil
		}
	}
	if len(found) == 0 {
		return "", errNoMirror
	}
	return found[0], nil
}

// parseList reads the one-line format: deb [options] uri suite component...
func parseList(text []byte) []source {
	var all []source
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || strings.TrimLeft(rest, " \t[") == rest { // deb-src, or not a source
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if f := strings.Fields(rest); len(f) >= 3 {
			all = append(all, source{uris: f[:1], suites: f[1:2], components: f[2:]})
		}
	}
	return all
}

// parseStanzas reads the deb822 format: fields with continuation lines, in stanzas
// separated by empty lines.
func parseStanzas(text []byte) []source {
	var all []source
	fields := map[string][]string{}
	var last string
	flush := func() {
		if slices.Contains(fields["types"], "deb") && !slices.Contains(fields["enabled"], "no") {
			all = append(all, source{fields["uris"], fields["suites"], fields["components"]})
		}
		fields, last = map[string][]string{}, ""
	}
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] = append(fields[last], strings.Fields(line)...)
		default:
			name, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(strings.TrimSpace(name))
			fields[last] = strings.Fields(value)
		}
	}
	flush()
	return all
}
