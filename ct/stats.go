package ct

import (
	"fmt"
	"sync"

	"github.com/ti-mo/conntrack"
)

// KernelStats counts what conntrack itself did in this network namespace, on all
// CPUs, since it was made: struct ip_conntrack_stat, linux/netfilter/nf_conntrack_common.h.
type KernelStats struct {
	InsertFailed uint64 // connections that clashed with one that was there
	Drop         uint64 // packets dropped because the table was full or memory short
	EarlyDrop    uint64 // connections that had to go for others: the table was full
	Invalid      uint64 // packets that belong to no connection
}

// Statistics reads them. It may be used by any goroutine.
type Statistics struct {
	mu   sync.Mutex
	conn *conntrack.Conn
}

// NewStatistics opens the socket in the network namespace of the calling thread.
func NewStatistics() (*Statistics, error) {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("conntrack statistics: %w", err)
	}
	return &Statistics{conn: conn}, nil
}

// Close closes the socket.
func (s *Statistics) Close() error { return s.conn.Close() }

// Read returns the sums over all CPUs.
func (s *Statistics) Read() (KernelStats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cpus, err := s.conn.Stats()
	if err != nil {
		return KernelStats{}, fmt.Errorf("conntrack statistics: %w", err)
	}
	var sum KernelStats
	for _, c := range cpus {
		sum.InsertFailed += uint64(c.InsertFailed)
		sum.Drop += uint64(c.Drop)
		sum.EarlyDrop += uint64(c.EarlyDrop)
		sum.Invalid += uint64(c.Invalid)
	}
	return sum, nil
}
