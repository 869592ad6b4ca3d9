package sidecars

import (
	"context"
	"time"
)

// looksEvery is how often While looks around.
const looksEvery = 200 * time.Millisecond

// While makes a call that takes long, and looks around every now and then until it is answered. look is called from the
// goroutine that called While.
func While[Reply any](ctx context.Context, call func(context.Context) (Reply, error), look func()) (Reply, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		reply Reply
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		reply, err := call(ctx)
		done <- answer{reply, err}
	}()
	ticker := time.NewTicker(looksEvery)
	defer ticker.Stop()
	for {
		select {
		case a := <-done:
			return a.reply, a.err
		case <-ticker.C:
			look()
		}
	}
}
