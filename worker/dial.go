package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// dial makes the client. It connects at its first call, and again whenever the connection is lost, each time to where
// the locator says.
func dial(config Config, where *locator) (client.Client, error) {
	options := client.Options{
		HostPort:        config.Temporal,
		Namespace:       config.Namespace,
		Identity:        identity(config.Home),
		Logger:          log.NewStructuredLogger(slog.New(config.Log.Handler())),
		HeadersProvider: where,
	}
	options.ConnectionOptions.DialOptions = []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: connectTimeout,
		}),
	}
	if config.Temporal != "" && config.TemporalKey != "" {
		options.Credentials = client.NewAPIKeyStaticCredentials(config.TemporalKey)
		options.ConnectionOptions.TLSDisabled = loopback(config.Temporal)
	}
	if where.external == "" {
		options.HostPort = "passthrough:///groundplan"
		// Compression costs more than the loopback saves by it.
		options.ConnectionOptions.GrpcCompression = &client.GrpcCompressionNone{}
		options.ConnectionOptions.DialOptions = append(options.ConnectionOptions.DialOptions,
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return where.connect(ctx) }))
	}
	return client.NewLazyClient(options)
}

// loopback says whether an address is on this machine by its number or as localhost.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// connectTimeout is how long one try to connect may take.
const connectTimeout = 5 * time.Second

// connect connects to the embedded services wherever they are, as soon as they are up: while nobody runs them, or who did
// was killed, it waits here. A refusal would have gRPC back off, and the session would be late when they are back.
func (l *locator) connect(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	for {
		address, err := l.address()
		if err == nil {
			var connection net.Conn
			if connection, err = dialer.DialContext(ctx, "tcp", address); err == nil {
				return connection, nil
			}
		}
		if sleep(ctx, pause/10) != nil {
			return nil, fmt.Errorf("connecting to the embedded Temporal: %w", err)
		}
	}
}

// retry calls until the answer is one, over restarts of the services, as long as the context allows.
func retry(ctx context.Context, call func() error) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		began := time.Now()
		err := call()
		if err == nil || !passing(err) || ctx.Err() != nil {
			return err
		}
		if time.Since(began) > 5*time.Second {
			wait = 20 * time.Millisecond // that one was no quick refusal
		}
		if sleep(ctx, wait) != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// passing says whether an error is one of a service that is away or overloaded, not an answer.
func passing(err error) bool {
	var (
		unavailable *serviceerror.Unavailable
		exhausted   *serviceerror.ResourceExhausted
		deadline    *serviceerror.DeadlineExceeded
		cancelled   *serviceerror.Canceled
		internal    *serviceerror.Internal
	)
	return errors.As(err, &unavailable) || errors.As(err, &exhausted) || errors.As(err, &deadline) ||
		errors.As(err, &cancelled) || errors.As(err, &internal) || errors.Is(err, context.DeadlineExceeded)
}
