package worker

import (
	"context"
	"errors"
	"net/http"
	"net/http/cookiejar"
	"os"
	"strings"
	"testing"
	"time"

	sdkworker "go.temporal.io/sdk/worker"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker/embedded"
)

// Dev keeps everything up until its context ends, and leaves nothing that says it is.
func TestDev(t *testing.T) {
	home := runs.Home(t.TempDir())
	ctx, stop := context.WithCancel(t.Context())
	ready, ended := make(chan Info, 1), make(chan error, 1)
	go func() {
		ended <- Dev(ctx, testConfig(home), func(ctx context.Context, s *Session) error {
			if len(s.PageKey()) < 32 || s.Home() != home || strings.Contains(s.Info().TemporalUI, s.PageKey()) {
				t.Errorf("the live page's key is %q, its home %q, Temporal's page %s", s.PageKey(), s.Home(), s.Info().TemporalUI)
			}
			ready <- s.Info()
			<-ctx.Done()
			return nil
		})
	}()
	var info Info
	select {
	case info = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	if info.PID != os.Getpid() || info.Started.IsZero() || info.Home != string(home) || info.Temporal == "" {
		t.Errorf("it says %+v", info)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Jar: jar}).Get(info.TemporalUI)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the page %s is %s", info.TemporalUI, response.Status)
	}
	s := openSession(t, testConfig(home))
	if output := wait(t, start(t, s, "run", five)); output.Verdict != stage.Passed {
		t.Errorf("got %+v", output)
	}
	closeSession(t, s)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(servicesPath(home)); err == nil {
		t.Error("services.json is still there")
	}
	until(t, "the lock is free", func() bool {
		lock, err := tryLock(s.lockPath())
		if err != nil {
			t.Fatal(err)
		}
		return lock != nil && lock.release() == nil
	})
}

func TestDevNeedsItsOwnTemporal(t *testing.T) {
	err := Dev(t.Context(), Config{Home: runs.Home(t.TempDir()), Temporal: "localhost:7233"}, nil)
	if err == nil || !strings.Contains(err.Error(), "localhost:7233") {
		t.Errorf("got %v", err)
	}
}

// A Temporal at an address, which asks for a key.
func TestExternal(t *testing.T) {
	folder := t.TempDir()
	server, err := embedded.Start(t.Context(), embedded.Options{
		Folder: folder, Namespace: DefaultNamespace, Attributes: attributes, Retention: historyKept, Token: "token",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	home := runs.Home(t.TempDir())
	config := testConfig(home)
	config.Temporal = server.Address()
	config.TemporalKey = "token"
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, config) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	until(t, "the worker is up", func() bool {
		s, err := Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return !s.Owner()
	})
	s := openSession(t, config)
	if s.Embedded() || s.Info() != (Info{Temporal: server.Address(), Namespace: DefaultNamespace, Home: string(home)}) {
		t.Errorf("it says %+v", s.Info())
	}
	if output := wait(t, start(t, s, "run", five)); output.Verdict != stage.Passed {
		t.Errorf("got %+v", output)
	}
	if _, err := os.Stat(servicesPath(home)); err == nil {
		t.Error("an external Temporal was announced as embedded")
	}
}

// Services that can't be started say why, leave the lock free and nothing announced.
func TestServicesThatCannotStart(t *testing.T) {
	home := runs.Home(t.TempDir())
	config := testConfig(home)
	broken := errors.New("no activities today")
	config.Register = func(Config, sdkworker.Registry) error { return broken }
	if _, err := Open(t.Context(), config); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(servicesPath(home)); err == nil {
		t.Error("they are announced")
	}
	lock, err := tryLock(string(home) + "/services.lock")
	if err != nil || lock == nil {
		t.Fatalf("the lock is held: %v", err)
	}
	if err := lock.release(); err != nil {
		t.Error(err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	config := testConfig(runs.Home(t.TempDir()))
	config.Temporal = "127.0.0.1:1"
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	began := time.Now()
	_, err := Open(ctx, config)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it took all the time there was: %v", err)
	}
}
