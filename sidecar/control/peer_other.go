//go:build !linux

package control

import (
	"context"
	"errors"
	"net"
	"os"
	"time"
)

// peer is who listens at the other end of a connection; here the system isn't asked, and the socket's folder is what
// keeps others out.
type peer struct {
	pid int
	uid int
}

func peerOf(net.Conn) (peer, error) { return peer{uid: os.Geteuid()}, nil }

// watched is a sidecar whose end can be waited for.
type watched struct{ client *Client }

func (c *Client) watch(ctx context.Context) (watched, error) {
	conn, err := c.connect(ctx, "", "")
	if err != nil {
		return watched{}, away(err)
	}
	return watched{client: c}, conn.Close()
}

func (w watched) close() {}

// wait returns once nobody listens any more.
func (w watched) wait(ctx context.Context) error {
	for ctx.Err() == nil {
		if _, err := w.client.Status(ctx); errors.Is(err, ErrAway) {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return ctx.Err()
}
