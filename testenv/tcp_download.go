package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A DownloadConfig says what to download.
type DownloadConfig struct {
	Client, Server *Namespace
	// From is the client's address, where it is not zero. To is the
	// server's; port 0 is any free one.
	From, To netip.AddrPort
	// Size is how many bytes to download; 0 is without end, until Stop.
	Size int64
	// Rate is in bytes a second; 0 is as fast as it goes.
	Rate int64
}

// A Download is one TCP connection on which the server sends, with both ends
// looked after by goroutines. Its methods may be called from any goroutine.
type Download struct {
	// Local and Remote are the connection's ends, as the client sees them.
	Local, Remote netip.AddrPort

	config         DownloadConfig
	pair           *TCPPair
	sent, received atomic.Int64
	stopping       chan struct{}
	once           sync.Once
	done           chan struct{}
	err            error // once done is closed
}

// content is what is downloaded, again and again. Its length is a prime, so that
// a piece that is lost or comes twice shows.
var content = func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 65521)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}()

// StartDownload connects and begins to download. If ctx ends, so does the
// download, with an error.
func StartDownload(ctx context.Context, config DownloadConfig) (*Download, error) {
	pair, err := OpenTCPPair(ctx, config.Client, config.Server, config.From, config.To)
	if err != nil {
		return nil, err
	}
	d := &Download{
		Local: pair.Client.Local, Remote: pair.Client.Remote,
		config: config, pair: pair,
		stopping: make(chan struct{}), done: make(chan struct{}),
	}
	go d.run(ctx)
	return d, nil
}

// Received returns how many bytes have come, all of them as they should be.
func (d *Download) Received() int64 { return d.received.Load() }

// Done is closed when the download has ended, well or not.
func (d *Download) Done() <-chan struct{} { return d.done }

// Wait waits for the end. It returns nil if all bytes have come, none else, and
// both sides have closed with a FIN.
func (d *Download) Wait() error {
	<-d.done
	return d.err
}

// Stop has the server end early, and waits as Wait does. What was sent until
// then must have come.
func (d *Download) Stop() error {
	d.once.Do(func() { close(d.stopping) })
	return d.Wait()
}

func (d *Download) run(ctx context.Context) {
	defer close(d.done)
	defer d.pair.Reset() // what has not been closed
	unwatch := context.AfterFunc(ctx, d.pair.Reset)
	defer unwatch()
	sending := make(chan error, 1)
	go func() { sending <- d.send() }()
	err := d.receive()
	if err != nil {
		d.pair.Reset()
	}
	d.err = errors.Join(context.Cause(ctx), err, <-sending)
	if sent, received := d.sent.Load(), d.received.Load(); d.err == nil && sent != received {
		d.err = fmt.Errorf("download: %d bytes sent, but %d received", sent, received)
	}
}

// send is the server's side.
func (d *Download) send() error {
	conn := d.pair.Server
	for begin := time.Now(); ; {
		sent := d.sent.Load()
		if d.config.Size > 0 && sent == d.config.Size || d.pause() {
			break
		}
		due := d.due(time.Since(begin)) - sent
		if due <= 0 {
			continue
		}
		at := int(sent % int64(len(content)))
		conn.conn.SetWriteDeadline(time.Now().Add(conn.Timeout))
		n, err := conn.conn.Write(content[at:min(int64(len(content)), int64(at)+due)])
		d.sent.Add(int64(n))
		if err != nil {
			return fmt.Errorf("download: %w", err)
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return conn.ReadEnd()
}

// due is how many bytes the server may have sent after a time.
func (d *Download) due(elapsed time.Duration) int64 {
	due := int64(1) << 62
	if d.config.Rate > 0 {
		due = int64(elapsed.Seconds() * float64(d.config.Rate))
	}
	if d.config.Size > 0 {
		due = min(due, d.config.Size)
	}
	return due
}

// pause waits for the time of the next piece, if the download is paced, and
// reports whether it is to stop.
func (d *Download) pause() (stopped bool) {
	var wait time.Duration
	if d.config.Rate > 0 {
		wait = d.interval()
	}
	select {
	case <-d.stopping:
		return true
	case <-time.After(wait):
		return false
	}
}

// interval is the pause between two pieces of a paced download: as long as
// 16 KiB take, within bounds.
func (d *Download) interval() time.Duration {
	const piece = 16 << 10
	interval := time.Duration(piece * float64(time.Second) / float64(d.config.Rate))
	return max(5*time.Millisecond, min(interval, 100*time.Millisecond))
}

// receive is the client's side.
func (d *Download) receive() error {
	conn, buf := d.pair.Client, make([]byte, len(content))
	for {
		at := int(d.received.Load() % int64(len(content)))
		conn.conn.SetReadDeadline(time.Now().Add(conn.Timeout))
		n, err := conn.conn.Read(buf[:len(content)-at])
		if !bytes.Equal(buf[:n], content[at:at+n]) {
			return fmt.Errorf("download %v->%v: after %d bytes others than were sent", conn.Remote, conn.Local, d.received.Load())
		}
		d.received.Add(int64(n))
		if err == io.EOF {
			return conn.Close()
		}
		if err != nil {
			return fmt.Errorf("download: after %d bytes: %w", d.received.Load(), err)
		}
	}
}
