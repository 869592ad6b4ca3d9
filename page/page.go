package page

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/groundplan/groundplan/internal/door"
	"github.com/groundplan/groundplan/runs"
)

//go:embed static
var static embed.FS

// Options say what a page shows.
type Options struct {
	Home     runs.Home
	Services Services
	// Door lets visitors in.
	Door door.Door
	// Log takes what goes wrong with the page itself; nil: nothing is said.
	Log *slog.Logger
}

// Page is the live page.
type Page struct {
	home      runs.Home
	services  Services
	door      door.Door
	log       *slog.Logger
	files     map[string]file
	token     string // goes with every POST
	heartbeat time.Duration

	ctx     context.Context
	stop    context.CancelFunc
	feeds   *feeds
	streams chan struct{} // one place per open stream
}

// New is a page that is not served yet. Close ends what it began.
func New(o Options) (*Page, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	sub, err := fs.Sub(static, "static")
	if err != nil {
		return nil, err
	}
	files, err := load(sub)
	if err != nil {
		return nil, fmt.Errorf("reading the page's own files: %w", err)
	}
	p := &Page{
		home: o.Home, services: o.Services, door: o.Door, log: o.Log, files: files, token: rand.Text(), heartbeat: heartbeat,
		streams: make(chan struct{}, mostStreams),
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.feeds = newFeeds(p.ctx)
	return p, nil
}

// Close ends every stream and everything that is looked at for them.
func (p *Page) Close() {
	p.stop()
	p.feeds.wait()
}

// Serve serves the page until the context ends. Streams end at once then; answers under way have a moment.
func (p *Page) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: p.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		p.Close()
		return err
	case <-ctx.Done():
	}
	p.Close()
	patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err := server.Shutdown(patient)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// Handler is all of the page, behind its door.
func (p *Page) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, name := range map[string]string{
		"GET /{$}": "runs.html", "GET /runs/{id}": "run.html", "GET /suites": "suites.html", "GET /suites/{name}": "suites.html",
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { p.file(w, r, name) })
	}
	mux.HandleFunc("GET /static/{file}", func(w http.ResponseWriter, r *http.Request) { p.file(w, r, r.PathValue("file")) })
	mux.HandleFunc("GET /runs/{id}/report.html", p.runReport)
	mux.HandleFunc("GET /suites/{name}/report.html", p.suiteReport)
	mux.HandleFunc("GET /api/hello", p.hello)
	mux.HandleFunc("GET /api/runs/stream", p.runsStream)
	mux.HandleFunc("GET /api/suites/stream", p.suitesStream)
	mux.HandleFunc("GET /api/suites/{name}/stream", p.suitesStream)
	for name, handle := range map[string]func(http.ResponseWriter, *http.Request, string){
		"stream": p.runStream, "outcomes": p.outcomes, "instance": p.instance, "files": p.outputFiles, "log": p.outputLog,
	} {
		mux.HandleFunc("GET /api/runs/{id}/"+name, named(handle, "id"))
	}
	p.actions(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fail(w, http.StatusNotFound, "there is no such page") })
	return secured(p.door.Guard(mux))
}

// named hands a handler the name in its path, where that is one that a run or suite can have.
func named(handle func(http.ResponseWriter, *http.Request, string), key string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue(key)
		if err := runs.CheckID(name); err != nil {
			fail(w, http.StatusNotFound, err.Error())
			return
		}
		handle(w, r, name)
	}
}

// hello is what the page's scripts need to begin with.
func (p *Page) hello(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]string{"token": p.token, "temporal": p.services.Temporal(), "home": string(p.home)})
}
