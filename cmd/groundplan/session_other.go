//go:build !unix

package main

import "os/exec"

// ownSession does nothing where there are no sessions: a process outlives its starter there anyway.
func ownSession(*exec.Cmd) {}
