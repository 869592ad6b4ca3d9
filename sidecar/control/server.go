package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// longestBody bounds what one call may send, in bytes.
	longestBody = 16 << 20
	// longestWait bounds how long one call may wait for a change.
	longestWait = time.Minute
)

// Backend does what the outside asks. Its methods are called from many goroutines at once. An *Error says what is
// refused; every other error is answered as the sidecar's own fault.
type Backend interface {
	Place(ctx context.Context, ask Placement) (Status, error)
	Network(ctx context.Context, ask Network) (NetworkReply, error)
	Open(ctx context.Context, key string, ask RunStage) (RunStatus, error)
	Wait(ctx context.Context, key string, since int64, wait time.Duration) (RunStatus, error)
	Halt(ctx context.Context, key string) (RunStatus, error)
	HaltAll(ctx context.Context) (Status, error)
	Status(ctx context.Context) (Status, error)
	Release(ctx context.Context) (Status, error)
}

// Error is a refusal: what is wrong with the call, in one sentence.
type Error struct {
	// Status is the HTTP status, 400 and above.
	Status  int
	Message string
}

func (e *Error) Error() string { return e.Message }

// Refuse makes an *Error.
func Refuse(status int, format string, args ...any) error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

// Server answers calls on a run's socket.
type Server struct {
	Backend Backend
	Log     *slog.Logger
	// Idle is called when no call has come for IdleLimit (0: never), and Released after the answer to a release has
	// been written. Both must return at once.
	IdleLimit time.Duration
	Idle      func()
	Released  func()

	mu    sync.Mutex
	calls int
	idle  *time.Timer
}

// Serve answers calls until ctx ends, then lets those under way finish for at most two seconds. It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.counted(s.routes()),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
	s.enter()
	s.leave() // begins to count idle time
	closed := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		closed <- errors.Join(server.Shutdown(grace), server.Close())
	})
	err := server.Serve(l)
	if stop() {
		return fmt.Errorf("serving the control socket: %w", err)
	}
	err = <-closed
	s.enter() // no idle time any more
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // whoever still waits is cut off
	}
	return err
}

// enter and leave bracket a call, so that idle time is counted between calls only.
func (s *Server) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.idle != nil {
		s.idle.Stop()
	}
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls--; s.calls == 0 && s.IdleLimit > 0 && s.Idle != nil {
		s.idle = time.AfterFunc(s.IdleLimit, s.Idle)
	}
}

func (s *Server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.enter()
		defer s.leave()
		next.ServeHTTP(w, r)
	})
}

func (s *Server) routes() http.Handler {
	b, mux := s.Backend, http.NewServeMux()
	mux.HandleFunc("POST /v1/place", answer(s, func(r *http.Request) (Status, error) {
		return asked(r, b.Place)
	}))
	mux.HandleFunc("POST /v1/network", answer(s, func(r *http.Request) (NetworkReply, error) {
		return asked(r, b.Network)
	}))
	mux.HandleFunc("POST /v1/stages/{key}", answer(s, func(r *http.Request) (RunStatus, error) {
		return asked(r, func(ctx context.Context, ask RunStage) (RunStatus, error) {
			return b.Open(ctx, r.PathValue("key"), ask)
		})
	}))
	mux.HandleFunc("GET /v1/stages/{key}", answer(s, func(r *http.Request) (RunStatus, error) {
		since, wait, err := window(r)
		if err != nil {
			return RunStatus{}, err
		}
		return b.Wait(r.Context(), r.PathValue("key"), since, wait)
	}))
	mux.HandleFunc("POST /v1/stages/{key}/halt", answer(s, func(r *http.Request) (RunStatus, error) {
		return b.Halt(r.Context(), r.PathValue("key"))
	}))
	mux.HandleFunc("POST /v1/halt", answer(s, func(r *http.Request) (Status, error) {
		return b.HaltAll(r.Context())
	}))
	mux.HandleFunc("GET /v1/status", answer(s, func(r *http.Request) (Status, error) {
		return b.Status(r.Context())
	}))
	release := answer(s, func(r *http.Request) (Status, error) {
		return b.Release(context.WithoutCancel(r.Context())) // half a release is none: it goes on without its caller
	})
	mux.HandleFunc("POST /v1/release", func(w http.ResponseWriter, r *http.Request) {
		release(w, r)
		if s.Released != nil {
			s.Released()
		}
	})
	return mux
}

// asked decodes a call's body and passes it on.
func asked[Ask, Reply any](r *http.Request, do func(context.Context, Ask) (Reply, error)) (Reply, error) {
	var ask Ask
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, longestBody)).Decode(&ask); err != nil {
		var none Reply
		return none, Refuse(http.StatusBadRequest, "the body of %s %s is not what it takes: %v", r.Method, r.URL.Path, err)
	}
	return do(r.Context(), ask)
}

// window reads ?since=V&wait=2s.
func window(r *http.Request) (since int64, wait time.Duration, err error) {
	query := r.URL.Query()
	if text := query.Get("since"); text != "" {
		if since, err = strconv.ParseInt(text, 10, 64); err != nil {
			return 0, 0, Refuse(http.StatusBadRequest, "since=%s is not a number", text)
		}
	}
	if text := query.Get("wait"); text != "" {
		if wait, err = time.ParseDuration(text); err != nil {
			return 0, 0, Refuse(http.StatusBadRequest, "wait=%s is not a duration like 2s", text)
		}
	}
	return since, min(wait, longestWait), nil
}

// answer writes what a call came to.
func answer[Reply any](s *Server, do func(*http.Request) (Reply, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		reply, err := do(r)
		w.Header().Set("Content-Type", "application/json")
		var body any = reply
		if err != nil {
			body = failure{Error: err.Error()}
			w.WriteHeader(s.statusOf(r, err))
		}
		if err := json.NewEncoder(w).Encode(body); err != nil && r.Context().Err() == nil {
			s.Log.Warn("an answer could not be written", "call", r.URL.Path, "error", err)
		}
	}
}

// failure is the body of an answer that is none.
type failure struct {
	Error string `json:"error"`
}

func (s *Server) statusOf(r *http.Request, err error) int {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Status
	}
	if r.Context().Err() == nil {
		s.Log.Error("a call failed", "call", r.Method+" "+r.URL.Path, "error", err)
	}
	return http.StatusInternalServerError
}
