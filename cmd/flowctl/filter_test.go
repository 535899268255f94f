package main

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// TestFilter holds what each filter of the command line sends, or what it says.
func TestFilter(t *testing.T) {
	var b bytes.Buffer
	for _, args := range [][]string{
		{},
		{"-p", "tcp", "-s", "192.0.2.1", "--sport", "40000", "-d", "198.51.100.2", "--dport", "443", "--zone", "5"},
		{"--proto", "47", "--orig-src", "2001:db8::/32"},
		{"--state", "closing", "--offload", "none", "--id", "4294967295"},
		{"-m", "0x10/0xff"},
		{"-m", "16"},
		{"-p", "256"},
		{"-p", "foo", "-s", "192.0.2.300", "--dport", "65536", "--state", "open", "--offload", "yes", "-m", "x/y"},
		{"--id", "-1"},
	} {
		var f filterFlags
		cmd := &cobra.Command{}
		f.register(cmd.Flags())
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		m, err := f.message()
		fmt.Fprintf(&b, "%q\n", args)
		if err != nil {
			if _, code := explain(err); code != exitUsage {
				t.Errorf("%q: exit code %d", args, code)
			}
			fmt.Fprintf(&b, "%v\n\n", err)
			continue
		}
		fmt.Fprintf(&b, "%s\n\n", oneLine(m))
	}
	golden(t, "filter.txt", b.Bytes())
}

// oneLine is a message in one line, always the same: prototext varies its blanks on
// purpose.
func oneLine(m proto.Message) []byte {
	return bytes.Join(bytes.Fields([]byte(prototext.MarshalOptions{}.Format(m))), []byte(" "))
}

// TestEveryVerbSaysWrongUsage tries each verb with what it cannot take.
func TestEveryVerbSaysWrongUsage(t *testing.T) {
	var walk func(*cobra.Command, []string)
	walk = func(cmd *cobra.Command, path []string) {
		for _, sub := range cmd.Commands() {
			walk(sub, append(path[:len(path):len(path)], sub.Name()))
		}
		if cmd.RunE == nil || cmd.HasParent() && cmd.Parent().Name() == "completion" {
			return
		}
		for _, wrong := range []string{"--no-such-flag", "surplus"} {
			root := newCommand()
			root.SetArgs(append(path[:len(path):len(path)], wrong))
			root.SetOut(new(bytes.Buffer))
			err := root.Execute()
			if err == nil {
				t.Errorf("%q %s: accepted", path, wrong)
				continue
			}
			if _, code := explain(err); code != exitUsage {
				t.Errorf("%q %s: exit code %d: %v", path, wrong, code, err)
			}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%q --%s: no description", path, f.Name)
			}
		})
	}
	walk(newCommand(), nil)
}
