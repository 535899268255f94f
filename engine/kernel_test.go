package engine

import (
	"slices"
	"sync"

	"flowd/flow"
)

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
