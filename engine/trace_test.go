package engine

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flowd/flow"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write what the engine does into the scripts of testdata")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestTraces tells each script of testdata to an engine and compares all that
// it does. Time is the script's own.
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			old, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var now string
			synctest.Test(t, func(t *testing.T) { now = retell(t, string(old)) })
			if *update {
				if err := os.WriteFile(file, []byte(now), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if now != string(old) {
				t.Errorf("the engine does otherwise (-update rewrites the script):\n%s", now)
			}
		})
	}
}

// teller is an engine to which a script is told.
type teller struct {
	script
	engine *Engine
	kernel *kernelStub
	start  time.Time
	seq    uint64 // of the next change to tell
	out    []string
}

// retell returns the script as it would have to be.
func retell(t *testing.T, text string) string {
	k := &kernelStub{}
	s := teller{
		script: script{flows: map[string][2]flow.Key{}, names: map[flow.Key]string{}},
		engine: New(defaults(), k, 64), kernel: k, start: time.Now(), seq: 1,
	}
	var blocks []string
	for i, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		told, _, wants := strings.Cut(block+"\n", "----\n")
		s.out = nil
		if err := s.block(strings.Split(strings.TrimSpace(told), "\n"), wants); err != nil {
			t.Fatalf("block %d: %v", i+1, err)
		}
		block := strings.TrimSpace(told)
		if wants {
			block = strings.TrimSpace(block + "\n----\n" + strings.Join(s.out, "\n"))
		}
		blocks = append(blocks, block)
	}
	return strings.Join(blocks, "\n\n") + "\n"
}

// block does what one block says: with dashes a step, else definitions.
func (s *teller) block(lines []string, step bool) error {
	var events []flow.Event
	timed := false
	for _, line := range lines {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "#"):
		case !step && words[0] == "flow":
			if err := s.define(words); err != nil {
				return err
			}
		case !step:
			return fmt.Errorf("nothing is expected of %q: are the dashes missing?", line)
		case words[0] == "evict":
			return s.evict(words[1:])
		case !timed:
			timed = true
			if err := s.wait(line); err != nil {
				return err
			}
		default:
			ev, err := s.event(words)
			if err != nil {
				return err
			}
			events = append(events, ev)
		}
	}
	if step {
		s.step(events)
	}
	return nil
}

// wait lets time pass up to a point of the script.
func (s *teller) wait(at string) error {
	d, err := time.ParseDuration(at)
	if err != nil {
		return err
	}
	if left := time.Until(s.start.Add(d)); left >= 0 {
		time.Sleep(left)
		return nil
	}
	return fmt.Errorf("%s: time goes back", at)
}

// evict is the command, at the time of the block before.
func (s *teller) evict(words []string) error {
	var flows []flow.Flow
	for _, w := range words {
		orig, _, id, err := s.connection(w)
		if err != nil {
			return err
		}
		if f, ok := s.engine.Table().Find(orig); ok && f.ID == id {
			flows = append(flows, f)
		}
	}
	n := s.engine.evict(evict{flows: flows, why: flow.ReasonCommand})
	s.out = append(s.out, fmt.Sprintf("%d there", n))
	s.step(nil)
	return nil
}

// step has the engine do all that there is to do.
func (s *teller) step(events []flow.Event) {
	actions, more := s.engine.Step(events, time.Now().UnixNano())
	s.tell(actions)
	if more {
		s.step(nil)
	}
}

// tell writes what changed since it was called last, and the actions.
func (s *teller) tell(actions []flow.Action) {
	buf := make([]flow.Change, 64)
	n, err := s.engine.Journal().Since(s.seq, buf)
	if err != nil {
		s.out = append(s.out, err.Error())
	}
	for i := range n {
		s.out = append(s.out, s.tellChange(&buf[i]))
	}
	s.seq += uint64(n)
	for _, a := range actions {
		s.out = append(s.out, s.tellAction(a))
	}
}
