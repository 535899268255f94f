package vm

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// initScript is the guest's first process.
//
//go:embed init.sh
var initScript string

// Job is what a guest is booted for.
type Job struct {
	// Script is run by sh as root in /root. It is what the guest's exit code is taken from.
	Script string
	// Env are environment variables of the script.
	Env map[string]string
	// Files are the host's files and folders (whole trees) to be put into the guest:
	// absolute guest path to host path. Modes are kept. /tmp, /run, /dev, /proc and /sys
	// are mounted over and cannot have any.
	Files map[string]string
	// Out is an existing host folder that gets a copy of what the script left in the
	// guest's /out. If empty, that is lost.
	Out string
	// Stdout is written what the script prints, as it comes. It may be nil.
	Stdout io.Writer
	// Memory is in MiB (default 1024), CPUs are the guest's processors (default 2; 1 with Warp,
	// which runs one at a time).
	Memory, CPUs int
	// Warp gives the guest a time of its own: it stands still where the host is busy with
	// something else, and jumps to the next timer whenever the guest would wait. All of the
	// guest's clocks and the kernel's jiffies go along. Five minutes of sleep take some 8 s; a
	// boot takes 10 s rather than 4.
	Warp bool
	// Timeout is for the guest from power on to power off, in the host's time (default 5 minutes).
	Timeout time.Duration
	// Append is added to the kernel's command line.
	Append string
}

// Result is what became of a job that ran to its end.
type Result struct {
	ExitCode int           // of the script
	Boot     time.Duration // from power on until the script started
	Total    time.Duration // from power on to power off
	Console  string        // the kernel's messages (warnings and worse), at most the last 256 KiB
}

// GuestError says that a guest did not come to its end: it timed out, its kernel
// panicked, or QEMU failed.
type GuestError struct {
	Kernel  string // uname -r
	Reason  string // what happened
	Stage   string // how far the guest was: "power on", "up", "run", "exit", "pack", "end"
	Last    string // the last line the script printed
	Console string // the kernel's messages, as in Result
	Err     error  // what QEMU or the context said; may be nil
}

func (e *GuestError) Error() string {
	s := fmt.Sprintf("guest %s: %s at stage %q", e.Kernel, e.Reason, e.Stage)
	if e.Last != "" {
		s += fmt.Sprintf(", last line %q", e.Last)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *GuestError) Unwrap() error { return e.Err }

// Run boots the kernel, runs the job and powers off. An exit code other than 0 is not an
// error; the error is a *GuestError where there is no exit code to be had.
func (k *Kernel) Run(ctx context.Context, job Job) (Result, error) {
	tmp, err := os.MkdirTemp("", "flowd-vm-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(tmp)
	g := &guest{
		kernel: k,
		job:    job.withDefaults(),
		initrd: filepath.Join(tmp, "initrd"),
		disk:   filepath.Join(tmp, "out"),
	}
	if err := g.writeInitrd(); err != nil {
		return Result{}, fmt.Errorf("guest %s: initrd: %w", k.Release, err)
	}
	if err := makeSparse(g.disk, outSize); err != nil {
		return Result{}, fmt.Errorf("guest %s: %w", k.Release, err)
	}
	res, err := g.boot(ctx)
	if err != nil || job.Out == "" {
		return res, err
	}
	if err := unpackTar(g.disk, job.Out); err != nil {
		return res, fmt.Errorf("guest %s: /out: %w", k.Release, err)
	}
	return res, nil
}

func (j Job) withDefaults() Job {
	if j.Memory == 0 {
		j.Memory = 1024
	}
	if j.CPUs == 0 {
		j.CPUs = 2
		if j.Warp {
			j.CPUs = 1
		}
	}
	if j.Timeout == 0 {
		j.Timeout = 5 * time.Minute
	}
	if j.Stdout == nil {
		j.Stdout = io.Discard
	}
	return j
}

// writeInitrd puts the kernel's archives and one with the job behind one another.
func (g *guest) writeInitrd() (err error) {
	f, err := os.Create(g.initrd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, name := range g.kernel.initrds {
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, in)
		in.Close()
		if err != nil {
			return err
		}
	}
	buf := bufio.NewWriterSize(f, 1<<20)
	if err := g.job.pack(newCPIOWriter(buf)); err != nil {
		return err
	}
	return buf.Flush()
}

// pack writes the archive with the job's script, environment and files.
func (j Job) pack(w *cpioWriter) error {
	env, err := j.environment()
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"init": initScript, "job.sh": j.Script, "job.env": env} {
		if err := w.file(name, 0o755, int64(len(text)), strings.NewReader(text)); err != nil {
			return err
		}
	}
	for _, guest := range sortedKeys(j.Files) {
		if err := checkGuestPath(guest); err != nil {
			return err
		}
		if err := packHost(w, guest, j.Files[guest]); err != nil {
			return err
		}
	}
	return w.close()
}

// packHost adds the host's file or tree. A link given by name is followed, those
// within a tree are kept.
func packHost(w *cpioWriter, guest, host string) error {
	host, err := filepath.EvalSymlinks(host)
	if err != nil {
		return err
	}
	info, err := os.Stat(host)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return w.copyFrom(os.DirFS(filepath.Dir(host)), filepath.Base(host), guest)
	}
	if err := w.dir(guest); err != nil {
		return err
	}
	return w.tree(os.DirFS(host), guest, func(string) bool { return true })
}

// hidden are the guest's folders that /init mounts something over.
var hidden = regexp.MustCompile(`^/(tmp|run|dev|proc|sys)(/|$)`)

func checkGuestPath(name string) error {
	if !path.IsAbs(name) {
		return fmt.Errorf("guest path %q is not absolute", name)
	}
	if hidden.MatchString(path.Clean(name)) {
		return fmt.Errorf("guest path %q would be hidden by a mount", name)
	}
	return nil
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (j Job) environment() (string, error) {
	var b strings.Builder
	for _, name := range sortedKeys(j.Env) {
		if !envName.MatchString(name) {
			return "", fmt.Errorf("environment: %q is no name of a variable", name)
		}
		fmt.Fprintf(&b, "export %s=%s\n", name, Quote(j.Env[name]))
	}
	return b.String(), nil
}

// Quote makes one word of sh out of s.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
