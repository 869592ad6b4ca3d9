package fabric

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// awaitIPv6 waits until instances get packets at their IPv6 addresses; error i belongs to instance i. The kernel gives them
// the route to themselves by and by, on a queue of work that everybody shares: on a busy machine that takes its time, and
// until then packets are dropped without a word.
func awaitIPv6(ctx context.Context, instances []*instance) []error {
	failures := make([]error, len(instances))
	_ = onThread(func() error {
		for i, one := range instances {
			if one != nil && one.data6.IsValid() {
				failures[i] = one.awaitIPv6(ctx)
			}
		}
		return nil
	})
	return failures
}

// awaitIPv6 leaves the calling thread in the instance's namespaces.
func (i *instance) awaitIPv6(ctx context.Context) error {
	if err := i.namespaces.enter(); err != nil {
		return err
	}
	inside, err := openSocket()
	if err != nil {
		return outOfFiles(err)
	}
	defer inside.Close()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if own, err := inside.delivers(i.data6); own || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for its IPv6 address: %w", ctx.Err())
		case <-time.After(wait):
		}
	}
}

// delivers says whether packets to an IPv6 address are for the socket's own namespace.
func (s *socket) delivers(address netip.Addr) (bool, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_ACK)
	request.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET6, Dst_len: 128}})
	request.AddData(nl.NewRtAttr(unix.RTA_DST, address.AsSlice()))
	local := false
	err := s.Query(request, func(payload []byte) {
		local = local || nl.DeserializeRtMsg(payload).Type == unix.RTN_LOCAL
	})
	if err != nil {
		return false, fmt.Errorf("looking for the route to %s: %w", address, err)
	}
	return local, nil
}
