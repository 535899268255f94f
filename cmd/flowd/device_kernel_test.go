//go:build kernel

package main

import (
	"fmt"
	"strings"
	"testing"

	"flowd/testenv"
)

// TestDevicesComeAndGo starts with a device that is not there, and has it come,
// go and come again: the rest is served all the while.
func TestDevicesComeAndGo(t *testing.T) {
	lab := testenv.Up(t)
	d := start(t, lab.Router, "[flowtable]\ndevices = [\"lan0\", \"wan0\", \"late0\", \"dyn*\"]\n")
	if status := d.ctl("status"); !strings.Contains(status, "on lan0, wan0\n") || !strings.Contains(status, "not on late0: not there") {
		t.Errorf("status does not tell of the missing device:\n%s", status)
	}
	members := func(want string) {
		t.Helper()
		testenv.Eventually(t, patience, func() error {
			table := lab.Router.Run(t, "nft", "list", "flowtable", "inet", "flowd", "fastpath")
			if !strings.Contains(table, "devices = { "+want+" }") {
				return fmt.Errorf("the flowtable is not on %s:\n%s", want, table)
			}
			if got := d.ctl("ruleset"); !strings.Contains(got, "devices = { "+want+" }") {
				return fmt.Errorf("flowctl ruleset is not on %s:\n%s", want, got)
			}
			return nil
		})
	}
	members("lan0, wan0")
	for range 2 {
		lab.Router.Run(t, "ip", "link", "add", "late0", "type", "dummy")
		members("lan0, late0, wan0")
		lab.Router.Run(t, "ip", "link", "add", "dyn7", "type", "dummy")
		members("dyn7, lan0, late0, wan0")
		lab.Router.Run(t, "ip", "link", "del", "late0")
		members("dyn7, lan0, wan0")
		lab.Router.Run(t, "ip", "link", "set", "dyn7", "name", "other7")
		members("lan0, wan0")
		lab.Router.Run(t, "ip", "link", "del", "other7")
	}
	if strings.Contains(d.log.String(), "another program") {
		t.Errorf("what the kernel did is blamed on a program:\n%s", d.log)
	}
}

// TestBridgeIsItsPorts names a bridge: its ports are members, it is not, and it is
// not missing either.
func TestBridgeIsItsPorts(t *testing.T) {
	lab := testenv.Up(t, testenv.Bridge)
	d := start(t, lab.Router, "[flowtable]\ndevices = [\"br0\", \"wan0\"]\n")
	status := d.ctl("status")
	if !strings.Contains(status, "on lan0, lan1, wan0\n") || strings.Contains(status, "not there") {
		t.Errorf("status:\n%s", status)
	}
}
