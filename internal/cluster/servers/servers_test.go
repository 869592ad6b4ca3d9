//go:build linux

package servers

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/internal/cluster/layout"
)

// folder starts servers as they are, wherever the test runs.
func folder(t *testing.T) Folder {
	f := Folder{Records: t.TempDir(), Logs: t.TempDir(), Wrap: func(s layout.Server) []string { return s.Command }}
	t.Cleanup(func() {
		names, err := f.Names()
		if err != nil {
			t.Error(err)
		}
		for _, name := range names {
			if err := f.Kill(name); err != nil {
				t.Error(err)
			}
		}
	})
	return f
}

func sleeper(name string) layout.Server {
	return layout.Server{Name: name, Machine: "m", Command: []string{"/bin/sh", "-c", "echo hello; exec sleep 60"}}
}

func TestStartIsIdempotent(t *testing.T) {
	f := folder(t)
	if err := f.Start(sleeper("a")); err != nil {
		t.Fatal(err)
	}
	first, alive := f.Alive("a")
	if !alive {
		t.Fatal(f.Dead("a"))
	}
	if err := f.Start(sleeper("a")); err != nil {
		t.Fatal(err)
	}
	if second, _ := f.Alive("a"); second != first {
		t.Errorf("process %d was started beside process %d", second, first)
	}
	if s, err := f.Known("a"); err != nil || s.Machine != "m" {
		t.Errorf("what is known of it is %+v, %v", s, err)
	}
}

func TestKillAndStartAgain(t *testing.T) {
	f := folder(t)
	if err := f.Start(sleeper("a")); err != nil {
		t.Fatal(err)
	}
	first, _ := f.Alive("a")
	for range 2 { // the second one finds nothing to do
		if err := f.Kill("a"); err != nil {
			t.Fatal(err)
		}
		if _, alive := f.Alive("a"); alive {
			t.Fatal("it lives on")
		}
	}
	s, err := f.Known("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Start(s); err != nil {
		t.Fatal(err)
	}
	if second, alive := f.Alive("a"); !alive || second == first {
		t.Errorf("it didn't start again: process %d, before %d", second, first)
	}
}

// TestStranger sees that a process which has got the number of a server that ended is not taken for it, let alone killed.
func TestStranger(t *testing.T) {
	f := folder(t)
	for name, change := range map[string]func(*record){
		"started at another time":  func(r *record) { r.Started-- },
		"before the machine began": func(r *record) { r.Boot = "another" },
	} {
		t.Run(name, func(t *testing.T) {
			if err := f.Start(sleeper("a")); err != nil {
				t.Fatal(err)
			}
			was, err := f.read("a")
			if err != nil {
				t.Fatal(err)
			}
			changed := was
			change(&changed)
			if err := f.write(changed); err != nil {
				t.Fatal(err)
			}
			if _, alive := f.Alive("a"); alive {
				t.Error("a stranger is taken for it")
			}
			if err := f.Kill("a"); err != nil {
				t.Error(err)
			}
			if err := f.write(was); err != nil {
				t.Fatal(err)
			}
			if _, alive := f.Alive("a"); !alive {
				t.Error("a stranger was killed")
			}
			if err := f.Kill("a"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDeadSaysWhy(t *testing.T) {
	f := folder(t)
	s := layout.Server{Name: "a", Command: []string{"/bin/sh", "-c", "sleep 0.2; for i in $(seq 100); do echo line $i; done; echo no such flag >&2; exit 1"}}
	if err := f.Start(s); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if f.Dead("a") != nil {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	err := f.Dead("a")
	if err == nil {
		t.Fatal("it lives on")
	}
	for _, want := range []string{"a has ended", f.Log("a"), "line 100", "no such flag"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "line 50\n") {
		t.Errorf("the whole log is quoted: %v", err)
	}
}

func TestUnknown(t *testing.T) {
	f := folder(t)
	if err := f.Start(sleeper("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Known("b"); err == nil || !strings.Contains(err.Error(), "it has a") {
		t.Errorf("got %v", err)
	}
	if err := f.Kill("b"); err != nil {
		t.Errorf("what never ran can't be killed: %v", err)
	}
	if err := f.Start(layout.Server{Name: "c", Command: []string{filepath.Join(t.TempDir(), "missing")}}); err == nil {
		t.Error("a program that isn't there was started")
	}
}

// TestEnvironment sees that a server gets nothing of what surrounds the program that starts it.
func TestEnvironment(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://outside")
	f := folder(t)
	if err := f.Start(layout.Server{Name: "a", Command: []string{"/bin/sh", "-c", "env; exec sleep 60"}}); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		text, err := os.ReadFile(f.Log("a"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "PATH=") {
			if strings.Contains(string(text), "outside") {
				t.Errorf("it has %s", text)
			}
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Error("it says nothing")
}

func TestRecordIsTheOwnersOnly(t *testing.T) {
	f := folder(t)
	if err := f.write(record{Server: sleeper("a")}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(f.file("a"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	text, err := os.ReadFile(f.file("a"))
	if err != nil || !json.Valid(text) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestParseStartTime(t *testing.T) {
	const rest = " S 1 2 2 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10"
	for stat, want := range map[string]uint64{
		"12 (etcd)" + rest:                               4711,
		"12 (a ) b) S)" + rest:                           4711,
		"12 (etcd)" + strings.Replace(rest, "S", "Z", 1): 0,
		"12 (etcd) S 1":                                  0,
		"":                                               0,
	} {
		got, err := parseStartTime(stat)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", stat, got, err)
		}
	}
}

func FuzzParseStartTime(f *testing.F) {
	f.Add("12 (etcd) S 1 2 2 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10")
	f.Fuzz(func(t *testing.T, stat string) {
		if _, err := parseStartTime(stat); err == nil && strings.Count(stat, " ") < 19 && len(strings.Fields(stat)) < 20 {
			t.Errorf("%q has a time of start", stat)
		}
	})
}
