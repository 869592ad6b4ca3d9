package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// peer is who listens at the other end of a connection.
type peer struct {
	pid int // in this process's own namespace
	uid int
}

// peerOf asks the kernel who listens.
func peerOf(conn net.Conn) (peer, error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return peer{}, fmt.Errorf("asking who listens: %w", err)
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return peer{}, fmt.Errorf("asking who listens: %w", err)
	}
	return peer{pid: int(cred.Pid), uid: int(cred.Uid)}, nil
}

// watched is a process whose end can be waited for; none when the sidecar is part of this very process.
type watched struct{ pidfd int }

const none = -1

// watch takes hold of the sidecar's process while it surely lives, so that its number can't become another's.
func (c *Client) watch(ctx context.Context) (watched, error) {
	conn, err := c.connect(ctx, "", "")
	if err != nil {
		return watched{}, away(err)
	}
	defer conn.Close()
	who, err := peerOf(conn)
	if err != nil {
		return watched{}, err
	}
	if who.pid == os.Getpid() {
		return watched{pidfd: none}, nil
	}
	fd, err := unix.PidfdOpen(who.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return watched{}, fmt.Errorf("%w: process %d has just ended", ErrAway, who.pid)
	}
	if err != nil {
		return watched{}, fmt.Errorf("taking hold of the sidecar's process %d: %w", who.pid, err)
	}
	return watched{pidfd: fd}, nil
}

func (w watched) close() {
	if w.pidfd != none {
		unix.Close(w.pidfd)
	}
}

// wait returns once the process is gone.
func (w watched) wait(ctx context.Context) error {
	for w.pidfd != none && ctx.Err() == nil {
		polled := []unix.PollFd{{Fd: int32(w.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(polled, int((50 * time.Millisecond).Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}
