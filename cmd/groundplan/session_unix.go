//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// ownSession lets a process outlive the terminal that started it.
func ownSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
