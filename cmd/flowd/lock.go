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

// lock is a lock file that is held.
type lock struct{ file *os.File }

// lockNamespace makes sure that one flowd alone serves this network namespace,
// wherever its socket is. The lock goes with the process, however that ends.
func lockNamespace() (*lock, error) {
	ns, err := networkNamespace()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(lockDir, 0o755); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	path := filepath.Join(lockDir, "net-"+ns+".lock")
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		held, err := claim(file)
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if held {
			return &lock{file}, nil
		}
		file.Close() // it was removed by its last holder meanwhile
	}
}

// claim locks a file and writes the process number into it. It reports whether
// the file is still the one that its path leads to.
func claim(file *os.File) (bool, error) {
	err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder := make([]byte, 16)
		n, _ := file.Read(holder)
		return false, coded{fmt.Errorf("another flowd runs in this network namespace: process %s", strings.TrimSpace(string(holder[:n]))), exitRunning}
	}
	if err != nil {
		return false, err
	}
	mine, err := file.Stat()
	if err != nil {
		return false, err
	}
	if there, err := os.Stat(file.Name()); err != nil || !os.SameFile(mine, there) {
		return false, nil
	}
	if err := file.Truncate(0); err != nil {
		return false, err
	}
	_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return true, err
}

// release removes the file, and with it the lock.
func (l *lock) release() {
	os.Remove(l.file.Name())
	l.file.Close()
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
