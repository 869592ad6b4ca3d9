package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// pace decides when to try again, and when to give up, for all senders together.
type pace struct {
	limits
	tell func(waiting string)

	mu      sync.Mutex
	answers bool      // the server has answered as it should at least once
	newest  time.Time // when something was last taken
}

func newPace(l limits, tell func(string)) *pace {
	return &pace{limits: l, tell: tell, newest: time.Now()}
}

// taken notes that the server took something.
func (p *pace) taken() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers, p.newest = true, time.Now()
}

// answered notes that the server is there.
func (p *pace) answered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.answers {
		p.answers, p.newest = true, time.Now()
	}
}

// left is how much longer the server may take nothing.
func (p *pace) left() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	patience := p.firstPatience
	if p.answers {
		patience = p.patience
	}
	return patience - time.Since(p.newest)
}

// final is a trouble when what went wrong will go wrong again; nil when it may pass.
func final(why error) error {
	var t trouble
	var r *refusal
	switch {
	case errors.As(why, &t):
		return t
	case !errors.As(why, &r):
		if lasting(why) {
			return trouble{why}
		}
	case r.account():
		return trouble{fmt.Errorf("it refuses the account, or what the account may do: %w", why)}
	case !r.passing() && r.status < 500:
		return trouble{why}
	}
	return nil
}

// wait waits before the next try, longer each time, and returns a trouble when another try has no sense: the server says so,
// or nothing has been taken for too long.
func (p *pace) wait(ctx context.Context, try int, why error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := final(why); err != nil {
		return err
	}
	wait := min(p.mostWait, p.leastWait<<min(try, 16))
	wait = wait/2 + rand.N(wait/2+1) // so that senders, and workers, don't come back together
	if r := (*refusal)(nil); errors.As(why, &r) {
		wait = max(wait, min(r.after, p.patience/2))
	}
	if left := p.left(); wait > left {
		return trouble{fmt.Errorf("it has taken nothing for %v: %w", p.since(), why)}
	}
	p.tell(why.Error())
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(wait):
		return nil
	}
}

func (p *pace) since() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.newest).Round(time.Second)
}
