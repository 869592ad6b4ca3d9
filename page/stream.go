package page

import (
	"bytes"
	"fmt"
	"net/http"
	"time"
)

const (
	// heartbeat is how often a stream with nothing to tell shows that it is there.
	heartbeat = 15 * time.Second
	// patience is how long a reader may take for what it is sent.
	patience = 20 * time.Second
	// mostStreams is how many pages may be open at once.
	mostStreams = 200
)

// stream tells a reader what a feed has to tell, from where it left off, until it goes away or the page is closed.
func (p *Page) stream(w http.ResponseWriter, r *http.Request, name string, begin func() subject) {
	select {
	case p.streams <- struct{}{}:
		defer func() { <-p.streams }()
	default:
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("%d pages are open: close some", mostStreams))
		return
	}
	f, leave := p.feeds.join(name, begin)
	defer leave()
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = r.URL.Query().Get("last")
	}
	s := sender{w: w, rc: http.NewResponseController(w)}
	if s.send([]byte("retry: 1000\n\n")) != nil {
		return
	}
	p.follow(r, &s, f, parsePlace(last))
}

// follow sends what there is, and then what comes.
func (p *Page) follow(r *http.Request, s *sender, f *feed, at place) {
	beat := time.NewTicker(p.heartbeat)
	defer beat.Stop()
	for {
		messages, now, changed, done := f.next(at)
		if len(messages) > 0 {
			if s.sendAll(messages, now) != nil {
				return
			}
			at = now
		}
		if done {
			return
		}
		select {
		case <-p.ctx.Done():
			return
		case <-r.Context().Done():
			return
		case <-changed:
		case <-beat.C:
			if s.send([]byte(": still here\n\n")) != nil {
				return
			}
		}
	}
}

// sender writes to one reader, and gives up on one who takes nothing.
type sender struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	buf bytes.Buffer
}

// sendAll writes messages; only the last one carries the place, since a part of them is no place to resume from.
func (s *sender) sendAll(messages []message, now place) error {
	s.buf.Reset()
	for i, m := range messages {
		if i == len(messages)-1 {
			fmt.Fprintf(&s.buf, "id: %s\n", now)
		}
		fmt.Fprintf(&s.buf, "event: %s\ndata: %s\n\n", m.kind, m.body)
	}
	return s.send(s.buf.Bytes())
}

func (s *sender) send(data []byte) error {
	// A recorder in a test knows no deadlines; a connection does.
	_ = s.rc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	return s.rc.Flush()
}
