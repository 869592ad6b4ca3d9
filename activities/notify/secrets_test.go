package notify

import (
	"os"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/runs"
)

func TestSecrets(t *testing.T) {
	home := runs.Home(t.TempDir())
	variables := map[string]string{"GROUNDPLAN_SECRET_A": "from a variable", "GROUNDPLAN_SECRET_EMPTY": ""}
	s := Secrets{Home: home, Getenv: func(name string) (string, bool) { v, ok := variables[name]; return v, ok }}
	check := func(name, want string) {
		t.Helper()
		secret, err := s.Read()
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := secret(name); got != want || ok != (want != "") {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	check("A", "from a variable")
	check("B", "")
	check("EMPTY", "")
	if err := os.WriteFile(s.File(), []byte("A: from the file\nB: |-\n  of two\n  lines\nEMPTY: of the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("A", "from a variable")
	check("B", "of two\nlines")
	check("EMPTY", "of the file")

	for _, mode := range []os.FileMode{0o640, 0o604, 0o644, 0o400, 0o700} {
		if err := os.Chmod(s.File(), mode); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(); err == nil || !strings.Contains(err.Error(), "chmod 600 ") {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

func TestSecretsThatAreNone(t *testing.T) {
	s := Secrets{Home: runs.Home(t.TempDir())}
	for text, ok := range map[string]bool{"": true, "# nothing\n": true, "A: {b: s3cret}\n": false, "s3cret": false, "A: [s3cret\n": false, "- s3cret\n": false} {
		if err := os.WriteFile(s.File(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(); (err == nil) != ok || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := os.Remove(s.File()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.File(), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(); err == nil {
		t.Error("a folder is taken for a file")
	}
}
