package api

import (
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"flowd/api/flowdv1"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// socketPath returns a path for a socket in a directory that is not there yet.
func socketPath(t *testing.T) string {
	return filepath.Join(t.TempDir(), "run", "s")
}

// listen makes a socket and has the test close it.
func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestListenMode(t *testing.T) {
	path := socketPath(t)
	listen(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	want := os.FileMode(0o600)
	if _, err := user.LookupGroup(Group); err == nil {
		want = 0o660
	}
	if info.Mode().Perm() != want || info.Mode().Type() != os.ModeSocket {
		t.Errorf("mode %v, want a socket with %v", info.Mode(), want)
	}
}

func TestShare(t *testing.T) {
	path := socketPath(t)
	listen(t, path)
	mode := func() os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := share(path, "no-such-group"); err != nil || mode() != 0o600 {
		t.Errorf("without the group: mode %v, %v; want it left to root", mode(), err)
	}
	own, err := user.LookupGroupId(strconv.Itoa(os.Getgid()))
	if err != nil {
		t.Fatal("the group of this process needs a name: ", err)
	}
	if err := share(path, own.Name); err != nil || mode() != 0o660 {
		t.Errorf("with the group: mode %v, %v; want 0660", mode(), err)
	}
	if err := share(path+"-gone", own.Name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a socket that is gone: %v", err)
	}
}

// The mask that guards the socket while it is made is the process's own again.
func TestListenRestoresUmask(t *testing.T) {
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	listen(t, socketPath(t))
	if now := unix.Umask(0o027); now != 0o027 {
		t.Errorf("umask %#o, was 0o27", now)
	}
}

func TestListenReplacesStaleSocket(t *testing.T) {
	path := socketPath(t)
	l := listen(t, path)
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as if the process had been killed
	l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	listen(t, path)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestListenSparesLiveSocket(t *testing.T) {
	path := socketPath(t)
	listen(t, path)
	_, err := Listen(path)
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("error %v, want ErrInUse", err)
	}
	if want := "socket " + path + ": in use by process " + strconv.Itoa(os.Getpid()); err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the live socket is gone: %v", err)
	}
	c.Close()
}

// A daemon too busy to accept is not a dead one.
func TestListenSparesBusySocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	addr := &unix.SockaddrUnix{Name: path}
	server := socket(t)
	if err := unix.Bind(server, addr); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(server, 0); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); !errors.Is(err, unix.EAGAIN); { // until nobody else may wait
		if err = unix.Connect(socket(t), addr); err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
	}
	if _, err := Listen(path); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("error %v, want EAGAIN", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the busy socket is gone: %v", err)
	}
}

// socket opens a unix socket that does not block.
func socket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestListenSparesOtherFiles(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink("/nonexistent", path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			if err := create(path); err != nil {
				t.Fatal(err)
			}
			_, err := Listen(path)
			if err == nil || !strings.HasPrefix(err.Error(), "socket "+path+": is there already and is no socket") ||
				!strings.HasSuffix(err.Error(), ": remove it or choose another path") {
				t.Errorf("error %v", err)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("it is gone: %v", err)
			}
		})
	}
}

func TestListenErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(file, "s")); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("below a file: %v, want ENOTDIR", err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 120))
	if _, err := Listen(long); !errors.Is(err, unix.EINVAL) || !strings.HasPrefix(err.Error(), "socket "+long) {
		t.Errorf("path too long for a socket: %v, want EINVAL", err)
	}
}

// A client reaches the daemon, whatever the path looks like.
func TestDial(t *testing.T) {
	for _, name := range []string{"s", "with space", "per%20cent", "question?mark", "hash#mark"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			l := listen(t, path)
			server := NewServer(start(t, 64))
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }()
			c, err := Dial(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := c.GetStatus(t.Context(), &flowdv1.GetStatusRequest{})
			if err != nil || s.Version != "1.2.3" {
				t.Errorf("status %v, %v", s, err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			server.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDialNobody(t *testing.T) {
	c, err := Dial(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.GetStatus(t.Context(), &flowdv1.GetStatusRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("error %v, want that nobody is there", err)
	}
}
