package pipelines

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files and generated documents")

// golden compares with a golden file, or writes it under -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run the tests with -update)", err)
	}
	if string(want) != got {
		t.Errorf("%s differs (run the tests with -update to accept):\n%s", file, diff(string(want), got))
	}
}

// diff shows the first lines that differ.
func diff(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return "want: " + strings.Join(a[min(i, len(a)):min(i+5, len(a))], "\n      ") +
				"\ngot:  " + strings.Join(b[min(i, len(b)):min(i+5, len(b))], "\n      ")
		}
	}
	return ""
}

func TestGood(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.yaml")
	if len(files) < 4 {
		t.Fatalf("only %d files", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			d, err := Load(file, Options{Root: "testdata/good", Getenv: environ(map[string]string{"CI": "true"})})
			if err != nil {
				t.Fatalf("\n%v", err)
			}
			var all []Resolved
			for _, c := range d.Cells() {
				r, err := d.Resolve(c)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, r)
				checkRoundTrip(t, r)
				checkReopened(t, d, c, r)
			}
			text, err := json.MarshalIndent(all, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".json", string(text)+"\n")
		})
	}
}

func environ(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

func checkRoundTrip(t *testing.T, r Resolved) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Resolved
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r, back) {
		again, _ := json.Marshal(back)
		t.Errorf("the round trip through JSON changes the value:\n%s\n%s", text, again)
	}
}

// checkReopened resolves the same cell from the bundle, both having been through JSON.
func checkReopened(t *testing.T, d *Document, cell map[string]any, want Resolved) {
	t.Helper()
	text, err := json.Marshal(d.Bundle())
	if err != nil {
		t.Fatal(err)
	}
	var b Bundle
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	text, _ = json.Marshal(cell)
	var c map[string]any
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	again, err := Open(b)
	if err != nil {
		t.Fatalf("opening the bundle: %v", err)
	}
	got, err := again.Resolve(c)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the bundle resolves differently:\n%+v\n%+v", got, want)
	}
}

func TestBad(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	if len(files) < 20 {
		t.Fatalf("only %d files", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			load := func() error { _, err := Load(file, Options{Root: "testdata/bad"}); return err }
			if filepath.Base(file) == "suite.yaml" {
				load = func() error { _, err := LoadSuite(file, Options{Root: "testdata/bad"}); return err }
			}
			err := load()
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 {
				t.Fatalf("want faults, got %v", err)
			}
			if again := load(); again.Error() != err.Error() {
				t.Errorf("the faults differ from one time to the next:\n%v\n%v", err, again)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", err.Error()+"\n")
		})
	}
}
