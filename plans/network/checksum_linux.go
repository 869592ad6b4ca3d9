package main

import (
	"errors"
	"net"
	"syscall"
)

// withoutChecksum sends a socket's packets without a checksum, so that the receiver sees damaged ones. Over IPv6 the
// receiver doesn't take such packets, so they keep theirs.
func withoutChecksum(c *net.UDPConn, six bool) error {
	if six {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_NO_CHECK, 1)
	})
	return errors.Join(err, set)
}
