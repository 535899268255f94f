package api

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"flowd/api/flowdv1"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// DefaultSocket is where flowd listens and flowctl looks unless told otherwise.
const DefaultSocket = "/run/flowd/flowd.sock"

// Group is the system group whose members may use the socket; without such a
// group only root may.
const Group = "flowd"

// ErrInUse tells that a socket belongs to a process that runs.
var ErrInUse = errors.New("in use")

// Listen makes the socket, mode 0660 and of group flowd. A socket left behind by
// a process that is gone is replaced; one on which somebody answers is not:
// ErrInUse, with the process that holds it.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := clearStale(path); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	// Nobody but root may connect before mode and group are set.
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := share(path, Group); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("is there already and is no socket (%v): remove it or choose another path", info.Mode().Type())
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if errors.Is(err, unix.ECONNREFUSED) {
		return os.Remove(path)
	}
	if err != nil {
		// One that cannot be asked, or is too busy to answer, is not stale.
		return err
	}
	defer c.Close()
	return fmt.Errorf("%w by process %s", ErrInUse, peer(c.(*net.UnixConn)))
}

// peer names the process at the other end of a unix socket (SO_PEERCRED).
func peer(c *net.UnixConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return "unknown"
	}
	var cred *unix.Ucred
	raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || cred == nil {
		return "unknown"
	}
	return strconv.Itoa(int(cred.Pid))
}

// share opens the socket to a group, if there is such a group.
func share(path, group string) error {
	g, err := user.LookupGroup(group)
	if err != nil {
		return nil // no such group: root alone
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group %s: id %q: %w", group, g.Gid, err)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}

// Client is a connection to flowd.
type Client struct {
	flowdv1.FlowdClient
	conn *grpc.ClientConn
}

// Dial returns a client of the flowd that listens on the socket. It does not
// connect: the first call does, and fails with codes.Unavailable if it cannot.
func Dial(socket string) (*Client, error) {
	// The socket's mode and owner say who may connect: there is nothing to encrypt.
	path, err := filepath.Abs(socket)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", socket, err)
	}
	target := url.URL{Scheme: "unix", Path: path}
	conn, err := grpc.NewClient(target.String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", socket, err)
	}
	return &Client{FlowdClient: flowdv1.NewFlowdClient(conn), conn: conn}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }
