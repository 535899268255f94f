package testenv

import (
	"os"
	"path/filepath"
	"strings"
)

// sysctlFile returns the file of a kernel setting below net, which is that of
// the namespace of the thread that opens it. Names are those of sysctl(8):
// net.netfilter.nf_conntrack_acct, or net/ipv4/conf/lan0.10/forwarding where a
// device has a dot in its name.
func sysctlFile(name string) string {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	return filepath.Join("/proc/sys", name)
}

// Sysctl returns a kernel setting below net as it is in the namespace.
func (n *Namespace) Sysctl(name string) (value string, err error) {
	err = n.Do(func() error {
		text, err := os.ReadFile(sysctlFile(name))
		value = strings.TrimSpace(string(text))
		return err
	})
	return value, err
}

// SetSysctl changes a kernel setting below net in the namespace.
func (n *Namespace) SetSysctl(name, value string) error {
	return n.Do(func() error { return writeFile(sysctlFile(name), value) })
}

// writeFile writes to a file that exists; os.WriteFile would create it.
func writeFile(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}
