package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// coverage sums up profiles in the text format of "go test -coverprofile".
type coverage struct {
	blocks map[string]*block // by position: file:line.column,line.column
	order  []string
}

type block struct {
	statements int
	count      uint64
}

// writeCoverage merges what all guests have measured, the tests and the programs they ran.
func writeCoverage(ctx context.Context, name string, runs []*kernelRun) error {
	c := &coverage{blocks: map[string]*block{}}
	for _, r := range runs {
		if err := programProfile(ctx, filepath.Join(r.out, "programs")); err != nil {
			return err
		}
		profiles, err := filepath.Glob(filepath.Join(r.out, "*.cover"))
		if err != nil {
			return err
		}
		more, err := filepath.Glob(filepath.Join(r.out, "programs", "*.cover"))
		if err != nil {
			return err
		}
		for _, p := range append(profiles, more...) {
			if err := c.addFile(p); err != nil {
				return err
			}
		}
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := c.write(f); err != nil {
		f.Close()
		return err
	}
	fmt.Printf("coverage: %.1f%% of statements, all kernels together\n", c.percent())
	return f.Close()
}

// programProfile turns the binary data that programs built with -cover leave into a profile.
func programProfile(ctx context.Context, dir string) error {
	if found, err := filepath.Glob(filepath.Join(dir, "covmeta.*")); err != nil || len(found) == 0 {
		return err
	}
	return goRun(ctx, "tool", "covdata", "textfmt", "-i="+dir, "-o="+filepath.Join(dir, "programs.cover"))
}

func (c *coverage) addFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.add(f); err != nil {
		return fmt.Errorf("profile %s: %w", name, err)
	}
	return nil
}

// add adds the counts of one profile.
func (c *coverage) add(r io.Reader) error {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		line := sc.Text()
		if strings.HasPrefix(line, "mode: ") || line == "" {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 {
			return fmt.Errorf("line %q: want position, statements and count", line)
		}
		statements, err := strconv.Atoi(f[1])
		if err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		count, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		b := c.blocks[f[0]]
		if b == nil {
			b = &block{statements: statements}
			c.blocks[f[0]] = b
			c.order = append(c.order, f[0])
		}
		b.count += count
	}
	return sc.Err()
}

// write writes the sum as a profile, blocks in the order in which they were first seen.
func (c *coverage) write(w io.Writer) error {
	buf := bufio.NewWriter(w)
	fmt.Fprintln(buf, "mode: atomic")
	for _, pos := range c.order {
		b := c.blocks[pos]
		fmt.Fprintf(buf, "%s %d %d\n", pos, b.statements, b.count)
	}
	return buf.Flush()
}

// percent is the share of statements that ran at all.
func (c *coverage) percent() float64 {
	var ran, all int
	for _, b := range c.blocks {
		all += b.statements
		if b.count > 0 {
			ran += b.statements
		}
	}
	return 100 * float64(ran) / float64(max(all, 1))
}
