package golden

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// listener is a test that keeps what it is told.
type listener struct {
	testing.TB
	said  string
	fatal bool
}

func (l *listener) Helper()                           {}
func (l *listener) Errorf(format string, args ...any) { l.said = fmt.Sprintf(format, args...) }
func (l *listener) Fatalf(format string, args ...any) {
	l.fatal = true
	l.Errorf(format, args...)
	runtime.Goexit()
}

func compare(path, got string) *listener {
	l := &listener{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		Compare(l, path, got)
	}()
	<-done
	return l
}

func set(t *testing.T, on bool) {
	t.Helper()
	before := *update
	*update = on
	t.Cleanup(func() { *update = before })
}

func TestCompare(t *testing.T) {
	set(t, false)
	path := filepath.Join(t.TempDir(), "x.golden")
	if l := compare(path, "a\n"); !l.fatal || !strings.Contains(l.said, "-update") {
		t.Errorf("a file that is not there: %+v", l)
	}
	if err := os.WriteFile(path, []byte("a\nb\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if l := compare(path, "a\nb\n"); l.said != "" {
		t.Errorf("the same: %s", l.said)
	}
	l := compare(path, "a\nc\n")
	if l.fatal || !strings.Contains(l.said, path) || !strings.HasSuffix(l.said, "from line 2\nwant\n\tb\ngot\n\tc\n") {
		t.Errorf("another: %+v", l)
	}
}

func TestUpdate(t *testing.T) {
	set(t, true)
	folder := t.TempDir()
	path := filepath.Join(folder, "sub", "x.golden")
	if l := compare(path, "new\n"); l.said != "" {
		t.Errorf("writing: %s", l.said)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "new\n" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	if l := compare(filepath.Join(path, "below-a-file"), ""); !l.fatal {
		t.Errorf("a path that can't be: %+v", l)
	}
	if _, err := os.Stat(filepath.Join(folder, "x.golden")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestDifference(t *testing.T) {
	for _, c := range []struct{ want, got, said string }{
		{"", "a\n", "from line 1\nwant\n\t(the text has ended)\ngot\n\ta\n"},
		{"a\nb", "a\n", "from line 2\nwant\n\tb\ngot\n\t(the text has ended)\n"},
		{"a\nb", "a\nb\n", "from line 2\nwant\n\tb\ngot\n\tb\n"},
		{strings.Repeat("x\n", 20), "x\n" + strings.Repeat("y\n", 20),
			"from line 2\nwant\n" + strings.Repeat("\tx\n", shown) + "got\n" + strings.Repeat("\ty\n", shown)},
	} {
		if said := difference(c.want, c.got); said != c.said {
			t.Errorf("%q and %q: %q", c.want, c.got, said)
		}
	}
}
