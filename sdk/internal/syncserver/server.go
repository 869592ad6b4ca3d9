// Package syncserver is a sync service in memory, for the tests of the SDK: the protocol and nothing else.
package syncserver

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/coder/websocket"
)

// Server is a sync service on the loopback interface.
type Server struct {
	http *httptest.Server

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced with every change
	states   map[string]int64
	topics   map[string][]string
	conns    map[*websocket.Conn]context.CancelFunc
	mute     bool
	closed   bool
	refuse   int
	Requests []string // what came in, for tests to look at after Close
}

// New starts one.
func New() *Server {
	s := &Server{
		changed: make(chan struct{}), states: map[string]int64{}, topics: map[string][]string{},
		conns: map[*websocket.Conn]context.CancelFunc{},
	}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	return s
}

// Address is its host:port.
func (s *Server) Address() string { return strings.TrimPrefix(s.http.URL, "http://") }

// Close ends it and its connections.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Cut()
	s.http.Close()
}

// Cut breaks every connection; what comes next may connect.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ws, cancel := range s.conns {
		cancel()
		_ = ws.CloseNow()
	}
}

// Mute has it do what it is asked without answering, until it is called with false.
func (s *Server) Mute(mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = mute
}

// Refuse has it answer connections with an HTTP status; 0 ends that.
func (s *Server) Refuse(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = status
}

// Signal adds to a state, by its whole key.
func (s *Server) Signal(key string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[key]++
	s.change()
	return s.states[key]
}

// Count is a state's, by its whole key.
func (s *Server) Count(key string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[key]
}

// Items are those of a topic, by its whole key.
func (s *Server) Items(key string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.topics[key]...)
}

// Publish appends to a topic, by its whole key.
func (s *Server) Publish(key, payload string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topics[key] = append(s.topics[key], payload)
	s.change()
	return int64(len(s.topics[key]))
}

// change wakes who waits. Callers hold mu.
func (s *Server) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

type request struct {
	ID      string `json:"id"`
	Cancel  bool   `json:"is_cancel"`
	Publish *struct {
		Topic   string          `json:"topic"`
		Payload json.RawMessage `json:"payload"`
	} `json:"publish"`
	Subscribe *struct {
		Topic string `json:"topic"`
	} `json:"subscribe"`
	Barrier *struct {
		State  string `json:"state"`
		Target int64  `json:"target"`
	} `json:"barrier"`
	Signal *struct {
		State string `json:"state"`
	} `json:"signal_entry"`
}

type seq struct {
	Seq int64 `json:"seq"`
}

type reply struct {
	ID        string `json:"id"`
	Error     string `json:"error"`
	Publish   *seq   `json:"publish"`
	Subscribe string `json:"subscribe"`
	Signal    *seq   `json:"signal_entry"`
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	refuse := s.refuse
	s.mu.Unlock()
	if refuse != 0 {
		http.Error(w, "refused", refuse)
		return
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.mu.Lock()
	s.conns[ws] = cancel
	if s.closed { // since Cut
		_ = ws.CloseNow()
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, ws)
		s.mu.Unlock()
		_ = ws.CloseNow()
	}()
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	cancels := map[string]context.CancelFunc{}
	for {
		_, frame, err := ws.Read(context.Background())
		if err != nil {
			return
		}
		var q request
		if json.Unmarshal(frame, &q) != nil {
			return
		}
		s.mu.Lock()
		s.Requests = append(s.Requests, string(frame))
		s.mu.Unlock()
		if q.Cancel {
			if end := cancels[q.ID]; end != nil {
				end()
			}
			continue
		}
		each, end := context.WithCancel(ctx)
		cancels[q.ID] = end
		work.Go(func() {
			s.answer(each, q, func(r reply) {
				s.mu.Lock()
				mute := s.mute
				s.mu.Unlock()
				if message, err := json.Marshal(r); err == nil && !mute {
					_ = ws.Write(context.Background(), websocket.MessageText, message)
				}
			})
		})
	}
}

func (s *Server) answer(ctx context.Context, q request, send func(reply)) {
	switch {
	case q.Publish != nil && strings.Contains(q.Publish.Topic, "refused"):
		send(reply{ID: q.ID, Error: "this topic is refused"})
	case q.Publish != nil:
		send(reply{ID: q.ID, Publish: &seq{s.Publish(q.Publish.Topic, string(q.Publish.Payload))}})
	case q.Signal != nil:
		send(reply{ID: q.ID, Signal: &seq{s.Signal(q.Signal.State)}})
	case q.Barrier != nil:
		if s.wait(ctx, func() bool { return s.states[q.Barrier.State] >= q.Barrier.Target }) {
			send(reply{ID: q.ID})
		}
	case q.Subscribe != nil:
		for next := 0; s.wait(ctx, func() bool { return len(s.topics[q.Subscribe.Topic]) > next }); next++ {
			send(reply{ID: q.ID, Subscribe: s.Items(q.Subscribe.Topic)[next]})
		}
	}
}

// wait waits until the condition holds, and says whether it does.
func (s *Server) wait(ctx context.Context, condition func() bool) bool {
	for {
		s.mu.Lock()
		met, changed := condition(), s.changed
		s.mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		if met {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}
