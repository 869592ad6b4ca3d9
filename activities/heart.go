package activities

import (
	"context"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/groundplan/groundplan/activities/stage"
)

// How often an activity heartbeats: at once on a change but no more often than quickest, and at least every slowest,
// since the answer to a heartbeat is how a cancellation gets here.
const (
	quickest = 100 * time.Millisecond
	slowest  = time.Second
)

// heart sends the newest progress of one attempt.
type heart struct {
	send    func(stage.Progress)
	mu      sync.Mutex
	newest  stage.Progress
	changed chan struct{} // holds one token while newest has not been sent
	over    chan struct{}
	ended   chan struct{}
}

// startHeart begins with what an earlier attempt had reported, so that what people see doesn't fall back.
func startHeart(ctx context.Context, in stage.Input) *heart {
	var before stage.Progress
	if activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &before) // details of another version of the program tell nothing
	}
	before.Stage, before.Attempt = in.Stage.Name, in.Attempt
	return newHeart(before, func(p stage.Progress) { activity.RecordHeartbeat(ctx, p) })
}

func newHeart(first stage.Progress, send func(stage.Progress)) *heart {
	h := &heart{
		send:    send,
		newest:  first,
		changed: make(chan struct{}, 1),
		over:    make(chan struct{}),
		ended:   make(chan struct{}),
	}
	h.changed <- struct{}{}
	go h.beat()
	return h
}

// report sets what is heartbeaten next.
func (h *heart) report(p stage.Progress) {
	h.mu.Lock()
	p.Stage, p.Attempt = h.newest.Stage, h.newest.Attempt
	same := p == h.newest
	h.newest = p
	h.mu.Unlock()
	if same {
		return
	}
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func (h *heart) beat() {
	defer close(h.ended)
	ticker := time.NewTicker(slowest)
	defer ticker.Stop()
	for {
		select {
		case <-h.over:
			return
		case <-h.changed:
		case <-ticker.C:
		}
		h.mu.Lock()
		newest := h.newest
		h.mu.Unlock()
		h.send(newest)
		select {
		case <-h.over:
			return
		case <-time.After(quickest):
		}
	}
}

// stop ends the heartbeats and waits for the last one.
func (h *heart) stop() {
	close(h.over)
	<-h.ended
}
