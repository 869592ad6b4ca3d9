package gateway

import (
	"context"
	"fmt"
	"net"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Embedded starts a Redis inside this process. It listens nowhere: only the client that comes with it reaches it. The
// function ends both.
func Embedded() (*redis.Client, func() error, error) {
	server := miniredis.NewMiniRedis()
	client := redis.NewClient(&redis.Options{
		Addr:     "embedded",
		Protocol: 2,
		Dialer:   func(context.Context, string, string) (net.Conn, error) { return server.Dial() },
	})
	stop := func() error {
		err := client.Close()
		server.Close()
		return err
	}
	if err := client.Ping(context.Background()).Err(); err != nil {
		_ = stop()
		return nil, nil, fmt.Errorf("starting the embedded Redis: %w", err)
	}
	return client, stop, nil
}
