package flow

// pool keeps each distinct value once, however many records refer to it, and
// forgets it when none does any more. Reference 0 is the zero value.
type pool[T comparable] struct {
	refs   map[T]uint32
	values []pooled[T] // the first is not used
	free   []uint32
}

type pooled[T comparable] struct {
	value T
	users uint32
}

// swap lets go of one reference and returns one to a value.
func (p *pool[T]) swap(old uint32, v T) uint32 {
	var zero T
	if p.value(old) == v {
		return old
	}
	ref, ok := uint32(0), true
	if v != zero {
		if ref, ok = p.refs[v]; !ok {
			ref = p.add(v)
		}
		p.values[ref].users++
	}
	p.drop(old) // last, or another value might get the same reference
	return ref
}

func (p *pool[T]) add(v T) uint32 {
	if p.refs == nil {
		p.refs, p.values = make(map[T]uint32), make([]pooled[T], 1)
	}
	var ref uint32
	if n := len(p.free); n > 0 {
		ref, p.free = p.free[n-1], p.free[:n-1]
	} else {
		ref = uint32(len(p.values))
		p.values = append(p.values, pooled[T]{})
	}
	p.values[ref] = pooled[T]{value: v}
	p.refs[v] = ref
	return ref
}

func (p *pool[T]) drop(ref uint32) {
	if ref == 0 {
		return
	}
	e := &p.values[ref]
	if e.users--; e.users == 0 {
		delete(p.refs, e.value)
		p.free = append(p.free, ref)
	}
}

func (p *pool[T]) value(ref uint32) (v T) {
	if ref == 0 {
		return v
	}
	return p.values[ref].value
}
