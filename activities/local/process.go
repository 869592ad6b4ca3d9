package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// startTicks is when a process started, in the kernel's count since boot; 0 when there is no such process, or only
// what is left of it until its parent has looked.
func startTicks(pid int) uint64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name stands in parentheses and may hold anything; the state is the first field behind it.
	_, rest, found := bytes.Cut(data[max(bytes.LastIndexByte(data, ')'), 0):], []byte(") "))
	fields := bytes.Fields(rest)
	if !found || len(fields) < 20 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return 0
	}
	ticks, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0
	}
	return ticks
}

// lives says whether that very process, not another with its PID, still runs.
func (p *process) lives() bool {
	return p != nil && p.PID > 1 && p.Ticks != 0 && startTicks(p.PID) == p.Ticks
}

// kill ends the process and returns when it is gone, and with it every instance.
func (p *process) kill(ctx context.Context) error {
	for p.lives() {
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending the sidecar's process %d: %w", p.PID, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}
