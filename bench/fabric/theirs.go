package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/launch"
)

//go:embed hosts.py
var script string

// buildTheirs has Mininet build one network in this process's namespaces, and passes on what it says.
func buildTheirs(o options) error {
	if err := launch.Prepare(); err != nil {
		return err
	}
	// brctl looks at bridges by /sys, which is to be about this network namespace.
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mounting /sys: %w", err)
	}
	// Debian's interpreter, which has Debian's packages.
	cmd := exec.Command("/usr/bin/python3", "-B", "-c", script, o.hosts, fmt.Sprint(o.megabits), o.latency.String())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
