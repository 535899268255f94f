package engine

import (
	"slices"
	"sync"

	"flowd/flow"
	"flowd/policy"
)

// defaults are the lifetimes of a flowd without configuration, and the kernel's timers
// as it sets them then.
func defaults() Config {
	timers := flow.KernelTimers{FlowTCP: 30, FlowUDP: 30, Established: 7440, UDPStream: 180, UDP: 30}
	return Config{Ageing: policy.Default().Ageing.Lifetimes(), Timers: timers}
}

// kernelStub keeps what the engine asks for.
type kernelStub struct {
	mu     sync.Mutex
	asked  []flow.Action
	number uint32 // that Refresh returns
}

func (k *kernelStub) Submit(actions []flow.Action) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, actions...) // a copy: the engine uses its slice again
}

func (k *kernelStub) Refresh() uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.number
}

// take returns what was asked for since it was called last.
func (k *kernelStub) take() []flow.Action {
	k.mu.Lock()
	defer k.mu.Unlock()
	asked := slices.Clone(k.asked)
	k.asked = k.asked[:0]
	return asked
}
