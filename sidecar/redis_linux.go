package sidecar

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/gateway"
)

// openRedis returns a client of the Redis at url, or of one inside this process, and what ends it.
func openRedis(url string, outside *hostNetwork) (redis.UniversalClient, func() error, error) {
	if url == "" {
		client, end, err := gateway.Embedded()
		return client, end, err
	}
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, nil, fmt.Errorf("understanding the address of Redis: %w", err)
	}
	options.ContextTimeoutEnabled = true
	if options.PoolSize == 0 {
		options.PoolSize = 1 // and one that listens: a hundred nodes are two hundred connections, whatever they do
	}
	if outside != nil {
		options.Dialer = outside.dial
		if secure := options.TLSConfig; secure != nil { // the client leaves it to the dialer
			options.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := outside.dial(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return tls.Client(conn, secure), nil
			}
		}
	}
	client := redis.NewClient(options)
	return client, client.Close, nil
}

// redisLog takes what the Redis client has to say for itself: it only speaks when something goes wrong.
type redisLog struct{ log *slog.Logger }

// Printf is what the client calls.
func (l redisLog) Printf(_ context.Context, format string, values ...any) {
	l.log.Warn("the Redis client spoke", "said", strings.TrimSpace(fmt.Sprintf(format, values...)))
}

// hostNetwork is the network of whoever started the sidecar, which has only its own. Sockets belong to the network of
// the thread that makes them.
type hostNetwork struct {
	namespace *os.File
	err       error // why it can't be entered
	resolver  *net.Resolver
}

// outsideOf takes hold of the network that Redis is on; nil where none is needed. It has to be called while /proc still
// is the host's.
func outsideOf(url string) *hostNetwork {
	if url == "" || strings.HasPrefix(url, "unix:") {
		return nil
	}
	h := &hostNetwork{}
	h.resolver = &net.Resolver{PreferGo: true, Dial: h.dialAddress}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		h.err = err
		return h
	}
	_, rest, _ := strings.Cut(string(status), "\nPPid:")
	parent, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	h.namespace, h.err = os.Open("/proc/" + parent + "/ns/net")
	return h
}

// dial connects from the host's network.
func (h *hostNetwork) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return h.dialAddress(ctx, network, address)
	}
	found, err := h.resolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, one := range found {
		conn, err := h.dialAddress(ctx, network, net.JoinHostPort(one, port))
		if err == nil {
			return conn, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// dialAddress connects to a numeric address from the host's network, by a thread that enters it and is thrown away.
func (h *hostNetwork) dialAddress(ctx context.Context, network, address string) (net.Conn, error) {
	if h.err != nil {
		return nil, fmt.Errorf("the sidecar of an unprivileged user can't leave its network to reach %s (give Redis as a unix:// URL, or none): %w", address, h.err)
	}
	type dialled struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialled, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if err := unix.Setns(int(h.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- dialled{err: fmt.Errorf("the sidecar of an unprivileged user can't leave its network to reach %s (give Redis as a unix:// URL, or none): %w", address, err)}
			return
		}
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, network, address)
		done <- dialled{conn, err}
	}()
	d := <-done
	return d.conn, d.err
}
