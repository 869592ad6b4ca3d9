package doctor

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/groundplan/groundplan/sidecar/network"
)

func find(t *testing.T, findings []Finding, name string) Finding {
	t.Helper()
	for _, f := range findings {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no finding %q", name)
	return Finding{}
}

func TestHealthy(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	findings := Examine(t.Context(), Subject{
		Home: filepath.Join(t.TempDir(), "not", "yet"), Supported: func() error { return nil },
		Temporal: listener.Addr().String(), Redis: "redis://" + miniredis.RunT(t).Addr(), Elasticsearch: func(context.Context) error { return nil },
	})
	for _, name := range []string{"namespaces", "go", "disk", "temporal", "redis", "elasticsearch"} {
		if f := find(t, findings, name); f.Level == Fail {
			t.Errorf("%+v", f)
		}
	}
}

func TestMissing(t *testing.T) {
	findings := Examine(t.Context(), Subject{
		Home: t.TempDir(), Supported: func() error { return errors.New("user namespaces are forbidden") },
		Temporal: "127.0.0.1:1", Redis: "redis://user:secret@127.0.0.1:1", Elasticsearch: func(context.Context) error { return errors.New("status 401 Unauthorized") },
	})
	for _, name := range []string{"namespaces", "temporal", "redis", "elasticsearch"} {
		f := find(t, findings, name)
		if f.Level != Fail || f.Fix == "" || f.Text == "" {
			t.Errorf("%+v", f)
		}
		if strings.Contains(f.Text, "secret") {
			t.Errorf("a password is shown: %s", f.Text)
		}
	}
}

func TestEmbedded(t *testing.T) {
	subject := Subject{Home: t.TempDir(), Supported: func() error { return nil }}
	subject.Services = func(context.Context) (string, error) { return "up", nil }
	if f := find(t, Examine(t.Context(), subject), "temporal"); f.Level != OK || f.Text != "up" {
		t.Errorf("%+v", f)
	}
	subject.Services = func(context.Context) (string, error) { return "", errors.New("half dead") }
	if f := find(t, Examine(t.Context(), subject), "temporal"); f.Level != Fail {
		t.Errorf("%+v", f)
	}
}

func TestNoToolchain(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if f := toolchain(t.Context()); f.Level != Warn || f.Fix == "" {
		t.Errorf("%+v", f)
	}
}

func TestAvailableMemory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meminfo")
	if err := os.WriteFile(file, []byte("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if n, err := availableMemory(file); err != nil || n != 2<<20 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := availableMemory(os.DevNull); err == nil {
		t.Error("no error for a file that doesn't tell")
	}
}

func TestRoom(t *testing.T) {
	for limit, want := range map[uint64]Level{10: Fail, 600: Warn, 20000: OK, 1 << 62: OK} {
		if f := room("files", limit, 6, "raise it"); f.Level != want || (f.Level == OK) != (f.Fix == "") {
			t.Errorf("%d: %+v", limit, f)
		}
	}
}

func TestShaping(t *testing.T) {
	for name, c := range map[string]struct {
		trial  network.Trial
		err    error
		levels map[string]Level
	}{
		"netem":          {network.Trial{}, nil, map[string]Level{"netem": OK, "user-space shaping": OK}},
		"user space":     {network.Trial{Netem: "no such qdisc"}, nil, map[string]Level{"netem": Warn, "user-space shaping": OK}},
		"nothing":        {network.Trial{Netem: "no such qdisc", UserSpace: "no nftables"}, nil, map[string]Level{"netem": Warn, "user-space shaping": Warn}},
		"no network too": {network.Trial{}, errors.New("no veth"), map[string]Level{"network": Fail}},
	} {
		findings := Examine(t.Context(), Subject{
			Home: t.TempDir(), Supported: func() error { return nil },
			Network: func(context.Context) (network.Trial, error) { return c.trial, c.err },
		})
		for finding, level := range c.levels {
			if f := find(t, findings, finding); f.Level != level || (f.Level == OK) != (f.Fix == "") {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
	// Without namespaces there is nothing to try.
	for _, f := range Examine(t.Context(), Subject{
		Home: t.TempDir(), Supported: func() error { return errors.New("no") },
		Network: func(context.Context) (network.Trial, error) { t.Error("tried"); return network.Trial{}, nil },
	}) {
		if f.Name == "netem" {
			t.Errorf("%+v", f)
		}
	}
}
