package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockDir holds one lock file for each network namespace with a flowd.
const lockDir = "/run/flowd"

// lockNamespace makes sure that one flowd alone serves this network namespace,
// wherever its socket is. The lock goes with the process, however that ends.
func lockNamespace() (*os.File, error) {
	ns, err := networkNamespace()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(lockDir, 0o755); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(lockDir, "net-"+ns+".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder := make([]byte, 16)
		n, _ := file.Read(holder)
		file.Close()
		return nil, coded{fmt.Errorf("another flowd runs in this network namespace: process %s", strings.TrimSpace(string(holder[:n]))), exitRunning}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	if err := errors.Join(file.Truncate(0), write(file, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return file, nil
}

func write(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// networkNamespace returns the inode number of the network namespace, which
// names it as long as it lives: lsns(8) shows it.
func networkNamespace() (string, error) {
	link, err := os.Readlink("/proc/self/ns/net") // net:[4026531840]
	if err != nil {
		return "", fmt.Errorf("network namespace: %w", err)
	}
	return strings.Trim(strings.TrimPrefix(link, "net:"), "[]"), nil
}
