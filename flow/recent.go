package flow

// tapDelay is how late, in ns, a FIN or RST may be told of: the kernel gathers them
// for 100 ms, and the reader may be busy.
const tapDelay = 3 * second / 10

// recent remembers tuples of flows that have ended before the tap told how, by their
// hashes, for as long as it may still do so. One may be forgotten for another: it
// serves to tell that a tuple is used again at once.
type recent [1 << 12]struct {
	hash uint64
	at   int64
}

func (c *recent) add(hash uint64, now int64) {
	e := &c[hash%uint64(len(c))]
	e.hash, e.at = hash, now
}

func (c *recent) has(hash uint64, now int64) bool {
	e := &c[hash%uint64(len(c))]
	return e.hash == hash && now < e.at+tapDelay
}
