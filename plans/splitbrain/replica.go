package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// value is what the service holds: one register, in which the newest write wins.
type value struct {
	// Version counts writes; of two with the same version the one of the greater writer is newer.
	Version int64
	Writer  int64
	Text    string
}

func (v value) newerThan(other value) bool {
	if v.Version != other.Version {
		return v.Version > other.Version
	}
	return v.Writer > other.Writer
}

// replica is one instance's copy of the register, served over HTTP:
//
//	GET /value → value
//	PUT /value ← value     keeps it if it is newer
type replica struct {
	seq int64

	mu      sync.Mutex
	value   value
	changed chan struct{} // closed when value changes, and made anew
}

func newReplica(seq int64) *replica {
	return &replica{seq: seq, changed: make(chan struct{})}
}

// get returns what is held and what is closed once it no longer is.
func (r *replica) get() (value, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.value, r.changed
}

// write puts a new text.
func (r *replica) write(text string) {
	now, _ := r.get()
	r.merge(value{now.Version + 1, r.seq, text})
}

// merge keeps a value if it is newer.
func (r *replica) merge(v value) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.newerThan(r.value) {
		r.value = v
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

func (r *replica) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	switch {
	case request.URL.Path != "/value":
		http.NotFound(w, request)
	case request.Method == http.MethodGet:
		now, _ := r.get()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(now) // who asked is gone
	case request.Method == http.MethodPut:
		var v value
		if err := json.NewDecoder(io.LimitReader(request.Body, 1<<16)).Decode(&v); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.merge(v)
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "GET or PUT", http.StatusMethodNotAllowed)
	}
}

// serve answers at a listener until ctx ends. start is how goroutines are started.
func (r *replica) serve(ctx context.Context, start func(func()), l net.Listener) {
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	start(func() { _ = server.Serve(l) }) // ends with Close
	context.AfterFunc(ctx, func() { _ = server.Close() })
}

// client speaks with other replicas. Every request has a connection of its own: one that was open when a partition began
// would only notice its end after TCP's pauses between tries, which double each time.
type client struct {
	http *http.Client
}

func newClient(patience time.Duration) client {
	return client{&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// get asks a peer for its value.
func (c client) get(ctx context.Context, url string) (value, error) {
	var v value
	err := c.do(ctx, http.MethodGet, url, nil, func(body io.Reader) error { return json.NewDecoder(body).Decode(&v) })
	return v, err
}

// put hands a peer a value.
func (c client) put(ctx context.Context, url string, v value) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPut, url, bytes.NewReader(body), func(io.Reader) error { return nil })
}

func (c client) do(ctx context.Context, method, url string, body io.Reader, read func(io.Reader) error) error {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, url, response.Status)
	}
	return read(response.Body)
}

// pause is how long is waited before something is tried again.
const pause = 200 * time.Millisecond

// replicate brings every change of the register to a peer until ctx ends, however long that can't be reached.
func (r *replica) replicate(ctx context.Context, c client, url string) {
	var sent value
	for {
		now, changed := r.get()
		var again <-chan time.Time
		if now.newerThan(sent) {
			if err := c.put(ctx, url, now); err == nil {
				sent = now
			} else {
				again = time.After(pause)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

// until tries something until it is done, or ctx ends: the error then says what was waited for and how it last was.
func until(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, errors.Join(ctx.Err(), err))
		case <-time.After(pause):
		}
	}
}
