package starter

import (
	"errors"
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "plan")
	paths, err := Write(dir, Facts{Name: "my-plan", Go: "1.26"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	if !slices.Equal(names, []string{"go.mod", "main.go", "pipeline.yaml"}) {
		t.Errorf("%q", names)
	}
	source, err := os.ReadFile(filepath.Join(dir, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	if tidy, err := format.Source(source); err != nil || string(tidy) != string(source) {
		t.Errorf("main.go is not formatted: %v", err)
	}
	module, _ := os.ReadFile(filepath.Join(dir, "go.mod"))
	if string(module) != "module my-plan\n\ngo 1.26\n" {
		t.Errorf("%q", module)
	}
}

func TestNothingIsReplaced(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "main.go")
	if err := os.WriteFile(mine, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(dir, Facts{Name: "p", Go: "1.26"}); err == nil || !strings.Contains(err.Error(), "main.go is there already") {
		t.Errorf("%v", err)
	}
	if text, _ := os.ReadFile(mine); string(text) != "mine" {
		t.Error("the file was replaced")
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); !errors.Is(err, os.ErrNotExist) {
		t.Error("half a plan was written")
	}
}

func TestNames(t *testing.T) {
	for folder, want := range map[string]string{
		"/x/My Plan": "my-plan", "/x/dht_2": "dht-2", "/": "plan", "/x/---": "plan", "/x/" + strings.Repeat("a", 80): strings.Repeat("a", 63),
	} {
		if got := Name(folder); got != want {
			t.Errorf("Name(%q) = %q, want %q", folder, got, want)
		}
	}
	for _, name := range []string{"", "Upper", "-x", "a b", strings.Repeat("a", 64)} {
		if _, err := Write(t.TempDir(), Facts{Name: name}); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}
