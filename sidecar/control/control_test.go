package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend answers what it is told to, and notes what it was asked.
type backend struct {
	mu    sync.Mutex
	asked []any
	fail  error
	hold  chan struct{}
}

func (b *backend) note(what ...any) error {
	b.mu.Lock()
	b.asked = append(b.asked, what)
	hold, fail := b.hold, b.fail
	b.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return fail
}

func (b *backend) Place(_ context.Context, ask Placement) (Status, error) {
	return Status{Run: ask.Run, New: 3}, b.note("place", ask)
}

func (b *backend) Network(_ context.Context, ask Network) (NetworkReply, error) {
	return NetworkReply{Refused: "no"}, b.note("network", ask)
}

func (b *backend) Open(_ context.Context, key string, ask RunStage) (RunStatus, error) {
	return RunStatus{Key: key, Version: 1}, b.note("open", key, ask)
}

func (b *backend) Wait(_ context.Context, key string, since int64, wait time.Duration) (RunStatus, error) {
	return RunStatus{Key: key, Version: since + 1}, b.note("wait", key, since, wait)
}

func (b *backend) Halt(_ context.Context, key string) (RunStatus, error) {
	return RunStatus{Key: key, Halted: true}, b.note("halt", key)
}

func (b *backend) HaltAll(context.Context) (Status, error) { return Status{}, b.note("halt all") }
func (b *backend) Status(context.Context) (Status, error)  { return Status{Run: "r"}, b.note("status") }
func (b *backend) Release(context.Context) (Status, error) { return Status{}, b.note("release") }

// serve serves a backend and returns a client of it.
func serve(t *testing.T, s *Server) (*Client, runs.Folder) {
	t.Helper()
	folder := runs.Home(t.TempDir()).Run("r")
	l, err := Listen(folder)
	if err != nil {
		t.Fatal(err)
	}
	s.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	released := s.Released
	s.Released = func() {
		if released != nil {
			released()
		}
		cancel()
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	client := Dial(Socket(folder))
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return client, folder
}

func TestCallsArriveAsTheyWereMade(t *testing.T) {
	b := &backend{}
	c, _ := serve(t, &Server{Backend: b})
	ctx := t.Context()
	place := Placement{Run: "r", Seed: 1<<64 - 1, Groups: []string{"g"}, All: []Group{{Group: pipelines.Group{Name: "g", Instances: 2}, Program: "/p"}}}
	network := Network{Key: "k", State: pipelines.Network{Access: "none"}}
	stage := RunStage{Stage: "s", Groups: []string{"g"}, Deadline: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	const key = "a stage/with ?odd&characters%2F-1"

	status, err := c.Place(ctx, place)
	if err != nil || status.New != 3 {
		t.Errorf("%+v, %v", status, err)
	}
	if status.PID != os.Getpid() {
		t.Errorf("process %d, want %d", status.PID, os.Getpid())
	}
	if reply, err := c.Network(ctx, network); err != nil || reply.Refused != "no" {
		t.Errorf("%+v, %v", reply, err)
	}
	if s, err := c.Open(ctx, key, stage); err != nil || s.Key != key {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := c.Wait(ctx, key, 7, 1500*time.Millisecond); err != nil || s.Version != 8 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := c.Wait(ctx, key, 0, time.Hour); err != nil { // longer than is allowed
		t.Error(err)
	}
	if s, err := c.Halt(ctx, key); err != nil || !s.Halted {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := c.HaltAll(ctx); err != nil {
		t.Error(err)
	}
	if s, err := c.Status(ctx); err != nil || s.Run != "r" {
		t.Errorf("%+v, %v", s, err)
	}
	want := []any{
		[]any{"place", place}, []any{"network", network}, []any{"open", key, stage},
		[]any{"wait", key, int64(7), 1500 * time.Millisecond}, []any{"wait", key, int64(0), time.Minute},
		[]any{"halt", key}, []any{"halt all"}, []any{"status"},
	}
	if !reflect.DeepEqual(b.asked, want) {
		t.Errorf("asked %+v\nwant  %+v", b.asked, want)
	}
}

func TestRefusalsAndFaults(t *testing.T) {
	b := &backend{fail: Refuse(http.StatusConflict, "g/%d still runs", 3)}
	c, _ := serve(t, &Server{Backend: b})
	var refused *Error
	if _, err := c.Open(t.Context(), "k", RunStage{}); !errors.As(err, &refused) || *refused != (Error{409, "g/3 still runs"}) {
		t.Errorf("got %v", err)
	}
	b.fail = errors.New("disk on fire")
	if _, err := c.Open(t.Context(), "k", RunStage{}); !errors.As(err, &refused) || *refused != (Error{500, "disk on fire"}) {
		t.Errorf("got %v", err)
	}
}

func TestCallsThatMakeNoSense(t *testing.T) {
	c, _ := serve(t, &Server{Backend: &backend{}})
	for call, want := range map[string]string{
		"POST /v1/place":              "the body of POST /v1/place is not what it takes",
		"GET /v1/stages/k?since=soon": "since=soon is not a number",
		"GET /v1/stages/k?wait=2":     "wait=2 is not a duration like 2s",
		"GET /v1/nonsense":            "404 page not found",
		"DELETE /v1/status":           "Method Not Allowed",
	} {
		method, path, _ := strings.Cut(call, " ")
		request, err := http.NewRequestWithContext(t.Context(), method, "http://sidecar"+path, strings.NewReader("{"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode < 400 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %s", call, answer.StatusCode, body)
		}
	}
}

func TestAway(t *testing.T) {
	folder := runs.Home(t.TempDir()).Run("r")
	c := Dial(Socket(folder))
	defer c.Close()
	away := func(when string) {
		t.Helper()
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrAway) {
			t.Errorf("%s: %v", when, err)
		}
		if _, err := c.Release(t.Context()); err != nil {
			t.Errorf("%s, releasing: %v", when, err)
		}
	}
	away("no folder")
	l, err := Listen(folder)
	if err != nil {
		t.Fatal(err)
	}
	// One that dies in the middle of a call.
	go func() {
		conn, err := l.Accept()
		if err == nil {
			buffer := make([]byte, 10)
			conn.Read(buffer)
			conn.Close()
		}
	}()
	if _, err := c.HaltAll(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("cut off: %v", err)
	}
	// One that was killed leaves its socket behind.
	l.Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(l.Listener.Close(), l.lock.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(Socket(folder)); err != nil {
		t.Fatal(err)
	}
	away("a dead socket")
	if l, err = Listen(folder); err != nil {
		t.Fatalf("over the remains of another: %v", err)
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(Socket(folder))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's folder is left: %v", err)
	}
	away("closed")
}

func TestContextsAreObeyed(t *testing.T) {
	b := &backend{hold: make(chan struct{})}
	defer close(b.hold)
	c, _ := serve(t, &Server{Backend: b})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrAway) {
		t.Errorf("got %v", err)
	}
}

func TestOnlyOneListens(t *testing.T) {
	b := &backend{}
	c, folder := serve(t, &Server{Backend: b})
	if _, err := Listen(folder); !errors.Is(err, ErrServed) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the first one was disturbed: %v", err)
	}
	for path, want := range map[string]os.FileMode{
		Socket(folder): 0o600 | os.ModeSocket, filepath.Dir(Socket(folder)): 0o700 | os.ModeDir,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestReleaseEndsTheServer(t *testing.T) {
	b, released := &backend{}, make(chan struct{})
	c, _ := serve(t, &Server{Backend: b, Released: func() { close(released) }})
	if _, err := c.Release(t.Context()); err != nil {
		t.Error(err)
	}
	<-released
}

func TestIdleTimeCountsBetweenCallsOnly(t *testing.T) {
	b := &backend{hold: make(chan struct{})}
	idle := make(chan struct{})
	c, _ := serve(t, &Server{Backend: b, IdleLimit: 150 * time.Millisecond, Idle: sync.OnceFunc(func() { close(idle) })})
	answered := make(chan error, 1)
	go func() { _, err := c.Status(t.Context()); answered <- err }()
	select {
	case <-idle:
		t.Error("called idle during a call")
	case <-time.After(500 * time.Millisecond):
	}
	close(b.hold)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	<-idle
}

func TestSocketPathsAreShort(t *testing.T) {
	seen := map[string]bool{}
	for _, home := range []string{"/h", "/h/" + strings.Repeat("x", 60), "/h/" + strings.Repeat("x", 90), "/h/" + strings.Repeat("x", 3000)} {
		path := Socket(runs.Home(home).Run("r"))
		if len(path) > 100 || seen[path] {
			t.Errorf("%q is too long or there twice", path)
		}
		seen[path] = true
	}
	if path := Socket("/h/runs/r"); path != "/h/runs/r/control/socket" {
		t.Error(path)
	}
	t.Setenv("TMPDIR", "/"+strings.Repeat("y", 200))
	if path := Socket(runs.Folder("/" + strings.Repeat("x", 200))); len(path) > 100 || !strings.HasPrefix(path, "/tmp/") {
		t.Error(path)
	}
}

func TestFolderOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a folder to another user takes root")
	}
	folder := runs.Folder(t.TempDir())
	dir := filepath.Dir(Socket(folder))
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(folder); err == nil || !strings.Contains(err.Error(), "is not a folder of this user") {
		t.Errorf("got %v", err)
	}
}

func TestTypesSurviveJSON(t *testing.T) {
	status := RunStatus{
		Key: "k", Done: true, Version: 9, Groups: map[string]Counts{"g": {Total: 2, Failed: 1}}, Failing: []string{"g/1"},
		Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Fault: "x", Unfinished: 1,
		FirstFailure: &Instance{Group: "g", Index: 1, Outcome: OutcomeFailed, Exit: -1, Signal: "SIGKILL", PeakMemory: 5, CPU: 0.25},
	}
	data, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	var back RunStatus
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, status) {
		t.Errorf("%+v, %v; want %+v", back, err, status)
	}
}
