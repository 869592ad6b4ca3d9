package worker

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

func TestServicesFile(t *testing.T) {
	home := runs.Home(t.TempDir())
	want := services{Temporal: "127.0.0.1:7233", Namespace: "default", Token: "secret", PID: 7, Started: time.Now().UTC().Round(0)}
	if err := writeServices(home, want); err != nil {
		t.Fatal(err)
	}
	got, err := readServices(home)
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	info, err := os.Stat(servicesPath(home))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read the token: %v, %v", info.Mode(), err)
	}
	for range 2 { // removing what isn't there is no fault
		if err := removeServices(home); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(string(home)); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := os.WriteFile(servicesPath(home), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readServices(home); err == nil || !strings.Contains(err.Error(), "services.json") {
		t.Errorf("half a file: %v", err)
	}
}

func TestHomeTokenIsOne(t *testing.T) {
	home := runs.Home(t.TempDir())
	tokens := make([]string, 16)
	var all sync.WaitGroup
	for i := range tokens {
		all.Go(func() {
			var err error
			if tokens[i], err = homeToken(home); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, token := range tokens {
		if len(token) < 20 || token != tokens[0] {
			t.Errorf("the home has the tokens %q and %q", tokens[0], token)
		}
	}
	if entries, err := os.ReadDir(string(home)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestLock(t *testing.T) {
	path := t.TempDir() + "/lock"
	first, err := tryLock(path)
	if err != nil || first == nil {
		t.Fatalf("got %v, %v", first, err)
	}
	if second, err := tryLock(path); err != nil || second != nil {
		t.Errorf("a second one got %v, %v", second, err)
	}
	if err := first.release(); err != nil {
		t.Fatal(err)
	}
	again, err := tryLock(path)
	if err != nil || again == nil {
		t.Fatalf("after it was given back: %v, %v", again, err)
	}
	if err := again.release(); err != nil {
		t.Fatal(err)
	}
	if _, err := tryLock(t.TempDir() + "/no/folder"); err == nil {
		t.Error("a lock in no folder")
	}
}

// Connecting waits for services that come later, and passes by an address where nobody listens any more.
func TestConnectWaitsForServices(t *testing.T) {
	home := runs.Home(t.TempDir())
	where := &locator{home: home}
	if err := writeServices(home, services{Temporal: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	time.AfterFunc(50*time.Millisecond, func() {
		if err := writeServices(home, services{Temporal: listener.Addr().String()}); err != nil {
			t.Error(err)
		}
	})
	connection, err := where.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	connection.Close()

	if err := removeServices(home); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := where.connect(ctx); !errors.Is(err, ErrNoServices) {
		t.Errorf("with no services: %v", err)
	}
}

func TestRetryGoesOnUntilThereIsAnAnswer(t *testing.T) {
	answer := errors.New("an answer")
	for name, c := range map[string]struct {
		errs  []error
		calls int
		want  error
	}{
		"at once":         {[]error{nil}, 1, nil},
		"an answer":       {[]error{answer}, 1, answer},
		"after a restart": {[]error{serviceerror.NewUnavailable("gone"), serviceerror.NewDeadlineExceeded("late"), nil}, 3, nil},
		"overloaded":      {[]error{&serviceerror.ResourceExhausted{}, answer}, 2, answer},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			err := retry(t.Context(), func() error { calls++; return c.errs[calls-1] })
			if calls != c.calls || !errors.Is(err, c.want) {
				t.Errorf("%d calls gave %v", calls, err)
			}
		})
	}
	t.Run("until the context ends", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		err := retry(ctx, func() error { return serviceerror.NewUnavailable("gone") })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestIdentities(t *testing.T) {
	s := &Session{config: Config{Home: "/home/one"}}
	for worker, dead := range map[string]bool{
		identity("/home/one"):                    false,
		identityPrefix("/home/one") + "1/abc":    true,
		identityPrefix("/home/two") + "1/abc":    false,
		"1@host@groundplan":                      false,
		"":                                       false,
		strings.ToUpper(identity("/home/one")):   false,
		identityPrefix("/home/one") + "9999/zzz": true,
	} {
		if s.dead(worker) != dead {
			t.Errorf("%q is taken for dead: %v", worker, !dead)
		}
	}
	if queue := s.localQueue(); queue != workflows.QueueFor(localHost("/home/one")) || queue == (&Session{config: Config{Home: "/home/two"}}).localQueue() {
		t.Errorf("two homes share the queue %s", queue)
	}
}
