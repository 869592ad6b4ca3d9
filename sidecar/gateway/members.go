package gateway

import (
	"context"
	"fmt"
)

// members is the key under which those are named who share the run's data.
func (g *Gateway) members() string { return g.prefix + "members" }

// Join says that somebody of that name uses the run's data from now on; again it changes nothing.
func (g *Gateway) Join(ctx context.Context, name string) error {
	pipe := g.redis.TxPipeline()
	pipe.SAdd(ctx, g.members(), name)
	pipe.Expire(ctx, g.members(), g.keep)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("joining the run's data in Redis: %w", err)
	}
	return nil
}

// Leave takes that back, and says whether nobody uses the data any more: it can be forgotten then.
func (g *Gateway) Leave(ctx context.Context, name string) (last bool, err error) {
	pipe := g.redis.TxPipeline()
	pipe.SRem(ctx, g.members(), name)
	left := pipe.SCard(ctx, g.members())
	if _, err := pipe.Exec(ctx); err != nil {
		return false, fmt.Errorf("leaving the run's data in Redis: %w", err)
	}
	return left.Val() == 0, nil
}
