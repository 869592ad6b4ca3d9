package page

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/groundplan/groundplan/workflows"
)

// asking bounds how long the services may take for a wish: they may just be taken over by another session.
const asking = 15 * time.Second

// actions are the wishes that the page can be told.
func (p *Page) actions(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/runs/{id}/cancel", named(func(w http.ResponseWriter, r *http.Request, id string) {
		var nothing struct{}
		p.act(w, r, runFeed(id), &nothing, func(ctx context.Context) error { return p.services.Cancel(ctx, id) })
	}, "id"))
	mux.HandleFunc("POST /api/runs/{id}/resume", named(func(w http.ResponseWriter, r *http.Request, id string) {
		var body struct {
			From string `json:"from"`
		}
		p.act(w, r, runFeed(id), &body, func(ctx context.Context) error { return p.services.Resume(ctx, id, body.From) })
	}, "id"))
	mux.HandleFunc("POST /api/runs/{id}/decide", named(func(w http.ResponseWriter, r *http.Request, id string) {
		var d workflows.Decision
		p.act(w, r, runFeed(id), &d, func(ctx context.Context) error { return p.services.Decide(ctx, id, d) })
	}, "id"))
	mux.HandleFunc("POST /api/suites/{name}/trigger", named(func(w http.ResponseWriter, r *http.Request, name string) {
		var nothing struct{}
		p.act(w, r, suiteFeed(name), &nothing, func(ctx context.Context) error { return p.services.Trigger(ctx, name) })
	}, "name"))
	mux.HandleFunc("POST /api/suites/{name}/pause", named(func(w http.ResponseWriter, r *http.Request, name string) {
		var body struct {
			Note string `json:"note"`
		}
		p.act(w, r, suiteFeed(name), &body, func(ctx context.Context) error { return p.services.Pause(ctx, name, body.Note) })
	}, "name"))
	mux.HandleFunc("POST /api/suites/{name}/unpause", named(func(w http.ResponseWriter, r *http.Request, name string) {
		var nothing struct{}
		p.act(w, r, suiteFeed(name), &nothing, func(ctx context.Context) error { return p.services.Unpause(ctx, name) })
	}, "name"))
}

// act does what a POST asks for, says how that went, and has what it changes looked at. The wish is carried out also when
// whoever asked goes away meanwhile.
func (p *Page) act(w http.ResponseWriter, r *http.Request, changes string, body any, do func(context.Context) error) {
	if !p.wish(w, r, body) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), asking)
	defer cancel()
	err := do(ctx)
	for _, name := range []string{changes, runsFeed, suitesFeed} {
		if f := p.feeds.find(name); f != nil {
			f.soon()
		}
	}
	switch {
	case err == nil:
		answer(w, struct{}{})
	case errors.Is(err, ErrUnknown):
		fail(w, http.StatusNotFound, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		fail(w, http.StatusGatewayTimeout, "the services did not answer in time: "+err.Error())
	default:
		fail(w, http.StatusConflict, err.Error())
	}
}
