package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// reader takes values over from a file whose keys and types are good, and
// gathers what is wrong with them.
type reader struct {
	source
	index
	problems []problem
}

type problem struct {
	offset  int // in the text
	message string
}

// read takes over the value of a key, if the file has the key.
func read[From, To any](r *reader, key string, value *From, to *To, parse func(From) (To, error)) {
	if value == nil {
		return
	}
	v, err := parse(*value)
	if err != nil {
		r.wrong(key, err)
		return
	}
	*to = v
}

// wrong notes what is wrong with the value of a key; nil: nothing.
func (r *reader) wrong(key string, err error) {
	if err != nil {
		r.problems = append(r.problems, problem{r.places[key], key + ": " + err.Error()})
	}
}

func (r *reader) patterns(key string, list []string) []Pattern {
	var all []Pattern
	for i, s := range list {
		p, err := parsePattern(s)
		r.wrong(fmt.Sprintf("%s[%d]", key, i), err)
		all = append(all, p)
	}
	return all
}

// checkKeys refuses keys such as Idle, which the TOML parser takes for idle.
func (r *reader) checkKeys() {
	for _, k := range r.capitals {
		r.problems = append(r.problems, problem{k.offset, fmt.Sprintf("unknown key %q: keys are in lower case", k.name)})
	}
}

// has tells whether the file names a key.
func (r *reader) has(key string) bool {
	_, ok := r.places[key]
	return ok
}

// find returns where the value of a key stands, as index says, or the header of
// the table of that name.
func (r *reader) find(key string) place { return r.placeOf(r.places[key]) }

// err is all that is wrong, in the file's order.
func (r *reader) err() error {
	slices.SortStableFunc(r.problems, func(a, b problem) int { return cmp.Compare(a.offset, b.offset) })
	var errs []error
	for _, p := range r.problems {
		errs = append(errs, r.at(r.placeOf(p.offset), p.message))
	}
	return errors.Join(errs...)
}
