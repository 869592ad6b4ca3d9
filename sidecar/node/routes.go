package node

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// longestAsk bounds what a call to the agent itself may send, in bytes.
const longestAsk = 64 << 10

func (a *Agent) routes() http.Handler {
	calls := http.NewServeMux()
	calls.HandleFunc("GET /v1/node", a.answer(func(*http.Request) (any, error) { return a.info(), nil }))
	calls.HandleFunc("PUT /v1/runs/{run}", a.answer(func(r *http.Request) (any, error) { return a.put(r) }))
	calls.HandleFunc("DELETE /v1/runs/{run}", a.answer(func(r *http.Request) (any, error) { return struct{}{}, a.delete(r) }))
	calls.HandleFunc("GET /v1/runs/{run}/archive", a.archive)
	calls.HandleFunc("/v1/runs/{run}/control/", a.pass)
	all := http.NewServeMux()
	all.HandleFunc("GET /healthz", a.answer(func(*http.Request) (any, error) { return struct{}{}, nil }))
	all.Handle("/", a.guarded(calls))
	return all
}

// guarded lets through whoever knows the token.
func (a *Agent) guarded(next http.Handler) http.Handler {
	wanted := sha256.Sum256([]byte("Bearer " + a.options.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(wanted[:], said[:]) != 1 {
			a.refuse(w, r, control.Refuse(http.StatusUnauthorized, "the token is not the one of the agent on node %s", a.options.Name))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// answer writes what a call came to.
func (a *Agent) answer(do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		reply, err := do(r)
		if err != nil {
			a.refuse(w, r, err)
			return
		}
		a.write(w, r, http.StatusOK, reply)
	}
}

// refuse writes a failure in the words of package control.
func (a *Agent) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	if refused := new(control.Error); errors.As(err, &refused) {
		status = refused.Status
	} else if r.Context().Err() == nil {
		a.log.Error("a call failed", "call", r.Method+" "+r.URL.Path, "error", err)
	}
	a.write(w, r, status, map[string]string{"error": err.Error()})
}

func (a *Agent) write(w http.ResponseWriter, r *http.Request, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil && r.Context().Err() == nil {
		a.log.Warn("an answer could not be written", "call", r.URL.Path, "error", err)
	}
}

func (a *Agent) info() Info {
	o := a.options
	info := Info{Name: o.Name, Address: o.Address, Version: o.Version, Started: a.started, Shaping: a.shaping(), Runs: []Run{}}
	for _, r := range a.list() {
		info.Runs = append(info.Runs, r.info())
	}
	return info
}

// id is the run that a call is about.
func id(r *http.Request) (string, error) {
	id := r.PathValue("run")
	if err := runs.CheckID(id); err != nil {
		return "", control.Refuse(http.StatusBadRequest, "%v", err)
	}
	return id, nil
}

func (a *Agent) put(r *http.Request) (control.Status, error) {
	id, err := id(r)
	if err != nil {
		return control.Status{}, err
	}
	var ask Ask
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, longestAsk)).Decode(&ask); err != nil {
		return control.Status{}, control.Refuse(http.StatusBadRequest, "the body of %s %s is not what it takes: %v", r.Method, r.URL.Path, err)
	}
	run, err := a.ensure(id, ask)
	if err != nil {
		return control.Status{}, err
	}
	status, err := run.answer(r.Context(), startsWithin)
	status.PID = 0 // it says nothing to whoever is not on this node
	return status, err
}

// delete removes a run. It goes on without its caller: half a removal is none.
func (a *Agent) delete(r *http.Request) error {
	id, err := id(r)
	if err != nil {
		return err
	}
	removed := make(chan error, 1)
	a.mu.Lock() // Serve waits for removals once nobody can begin one any more
	if err := a.ending(); err != nil {
		a.mu.Unlock()
		return err
	}
	a.removals.Go(func() { removed <- a.remove(a.ctx, id) })
	a.mu.Unlock()
	select {
	case err := <-removed:
		return err
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// pass passes a call on to a run's sidecar.
func (a *Agent) pass(w http.ResponseWriter, r *http.Request) {
	id, err := id(r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	run := a.find(id)
	if run == nil {
		a.refuse(w, r, control.Refuse(http.StatusBadGateway, "run %s has no sidecar on node %s: ask for one first", id, a.options.Name))
		return
	}
	http.StripPrefix("/v1/runs/"+id+"/control", run.proxy).ServeHTTP(w, r)
}

// newProxy passes calls on to the sidecar that listens, or will listen, on a socket.
func (a *Agent) newProxy(socket string) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "sidecar"})
			p.Out.Header.Del("Authorization")
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", socket)
			},
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			a.refuse(w, r, control.Refuse(http.StatusBadGateway, "the sidecar on node %s doesn't answer %s: %s", a.options.Name, r.URL.Path, strings.TrimSpace(err.Error())))
		},
	}
}
