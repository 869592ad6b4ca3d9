package testground

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/groundplan/groundplan/pipelines"
)

var update = flag.Bool("update", false, "rewrite what the golden archives want")

// TestGolden imports the plan in each archive. What is wanted stands in the same archive, under want/.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			given, want := split(archive)
			got := outcomeText(t, given)
			if *update {
				archive.Files = append(archive.Files[:len(archive.Files)-len(want)], got...)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compare(t, want, got)
		})
	}
}

func split(archive *txtar.Archive) (given map[string][]byte, want []txtar.File) {
	given = map[string][]byte{}
	for _, f := range archive.Files {
		if strings.HasPrefix(f.Name, "want/") {
			want = append(want, f)
		} else {
			given[f.Name] = f.Data
		}
	}
	return given, want
}

// inputOf makes an import of an archive's files. A plan has a go.mod, unless the archive has one of another name only.
func inputOf(given map[string][]byte) Input {
	named := false
	for name := range given {
		named = named || path.Ext(name) == ".mod"
	}
	in := Input{
		Manifest: File{"manifest.toml", given["manifest.toml"]},
		Env:      map[string]string{"REGION": "eu", "PEERS": "3"},
		Files:    func(name string) bool { return given[name] != nil || !named && path.Base(name) == "go.mod" },
		Resource: func(name string) ([]byte, error) {
			if data, ok := given["compositions/"+name]; ok {
				return data, nil
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		},
	}
	for name, data := range given {
		switch {
		case strings.HasPrefix(name, "compositions/main."):
			in.Composition = &File{name, data}
		case strings.HasSuffix(name, ".go"), strings.HasSuffix(name, ".mod"):
			in.Sources = append(in.Sources, File{name, data})
		}
	}
	return in
}

func outcomeText(t *testing.T, given map[string][]byte) []txtar.File {
	t.Helper()
	result, err := Import(inputOf(given))
	var faults Faults
	switch {
	case errors.As(err, &faults):
		return []txtar.File{{Name: "want/faults", Data: []byte(faults.Error() + "\n")}}
	case err != nil:
		t.Fatalf("the error is %T: %v", err, err)
	}
	var out []txtar.File
	for _, p := range result.Pipelines {
		valid(t, p)
		out = append(out, txtar.File{Name: "want/" + p.File, Data: p.Text})
	}
	var b strings.Builder
	for _, r := range result.Report {
		fmt.Fprintf(&b, "%s:%d %s %s: %s\n", r.File, r.Line, r.State, r.Key, r.Became)
	}
	return append(out, txtar.File{Name: "want/report", Data: []byte(b.String())})
}

// valid holds what was written against the language.
func valid(t *testing.T, p Pipeline) pipelines.Resolved {
	t.Helper()
	doc, err := pipelines.Open(pipelines.Bundle{File: p.File, Files: map[string]string{p.File: string(p.Text)}})
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Text)
	}
	r, err := doc.Resolve(nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Text)
	}
	if r.Name != p.Name {
		t.Errorf("the pipeline is called %s, and Name says %s", r.Name, p.Name)
	}
	return r
}

func compare(t *testing.T, want, got []txtar.File) {
	t.Helper()
	wanted := map[string]string{}
	for _, f := range want {
		wanted[f.Name] = string(f.Data)
	}
	for _, f := range got {
		if text, ok := wanted[f.Name]; !ok || text != string(f.Data) {
			t.Errorf("%s (run with -update when this is right):\n%s\nwanted:\n%s", f.Name, f.Data, text)
		}
		delete(wanted, f.Name)
	}
	for name := range wanted {
		t.Errorf("%s wasn't made", name)
	}
}
