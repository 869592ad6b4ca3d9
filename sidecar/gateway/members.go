package gateway

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
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

// Number is a number from 1 to most that the run shares with no other: the first free one from start on, which the run
// keeps until its data is forgotten. Whoever asks for the run gets the same.
func (g *Gateway) Number(ctx context.Context, start, most uint32) (uint32, error) {
	for n, tries := start, 0; tries < 100; n, tries = n%most+1, tries+1 {
		decided, err := g.number(ctx)
		if decided > 0 || err != nil {
			return decided, err
		}
		mine, err := g.claim(ctx, n)
		if err != nil {
			return 0, err
		}
		if !mine {
			continue
		}
		if err := g.redis.SetNX(ctx, g.numberKey(), n, g.keep).Err(); err != nil {
			return 0, fmt.Errorf("taking a number in Redis: %w", err)
		}
		if decided, err = g.number(ctx); decided != n && err == nil { // another gateway of the run was faster
			err = g.unclaim(ctx, n)
		}
		return decided, err
	}
	return 0, fmt.Errorf("no number from %d on is free: a hundred runs have those that follow it", start)
}

// numberKey is the key under which the run's number is, and claimKey that under which a number's run is.
func (g *Gateway) numberKey() string { return g.prefix + "number" }
func claimKey(n uint32) string       { return "groundplan:number:" + strconv.FormatUint(uint64(n), 10) }

// number is the run's number; 0 while it has none.
func (g *Gateway) number(ctx context.Context) (uint32, error) {
	n, err := g.redis.Get(ctx, g.numberKey()).Uint64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("asking Redis for the run's number: %w", err)
	}
	return uint32(n), nil
}

// claim takes a number for the run, and says whether it has it.
func (g *Gateway) claim(ctx context.Context, n uint32) (bool, error) {
	taken, err := g.redis.SetNX(ctx, claimKey(n), g.prefix, g.keep).Result()
	if err != nil || taken {
		return taken, err
	}
	by, err := g.redis.Get(ctx, claimKey(n)).Result()
	if errors.Is(err, redis.Nil) { // given back just now: the next try finds another
		return false, nil
	}
	return by == g.prefix, err
}

func (g *Gateway) unclaim(ctx context.Context, n uint32) error {
	by, err := g.redis.Get(ctx, claimKey(n)).Result()
	if err == nil && by == g.prefix {
		err = g.redis.Del(ctx, claimKey(n)).Err()
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("giving a number back in Redis: %w", err)
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
