package artifacts

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

func TestOverrides(t *testing.T) {
	for _, c := range []struct {
		name   string
		files  map[string]string
		source pipelines.GoSource
		says   string
		fault  string
	}{
		{
			name:   "replace by a version",
			source: pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "v1.1.0"}},
			says:   "hello from v1.1.0",
		},
		{
			name:   "replace by a module and a version",
			source: pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "example.test/greeting@v1.2.0"}},
			says:   "hello from v1.2.0",
		},
		{
			name: "replace by a folder",
			files: map[string]string{
				"lib/go.mod": "module example.test/greeting\n\ngo 1.21\n",
				"lib/lib.go": "package greeting\n\nfunc Text() string { return \"hello from here\" }\n",
			},
			source: pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "./lib"}},
			says:   "hello from here",
		},
		{
			name:   "replace over a replace of one version in go.mod",
			files:  map[string]string{"plan/go.mod": greeter()["plan/go.mod"] + "\nreplace example.test/greeting v1.0.0 => example.test/greeting v1.2.0\n"},
			source: pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "v1.1.0"}},
			says:   "hello from v1.1.0",
		},
		{
			name:   "require a version",
			source: pipelines.GoSource{Require: map[string]string{"example.test/greeting": "v1.2.0"}},
			says:   "hello from v1.2.0",
		},
		{
			name:   "require the latest version",
			source: pipelines.GoSource{Require: map[string]string{"example.test/greeting": "latest"}},
			says:   "hello from v1.2.0",
		},
		{
			name:   "replace what is not used",
			source: pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "v1.0.0", "example.test/unused": "v1.0.0"}},
			fault:  "replace names example.test/unused, but nothing of that module goes into the program",
		},
		{
			name: "require less than another module needs",
			files: map[string]string{
				"plan/go.mod":  "module example.test/plan\n\ngo 1.21\n\nrequire (\n\texample.test/greeting v1.1.0\n\texample.test/polite v1.0.0\n)\n",
				"plan/main.go": "package main\n\nimport (\n\t\"fmt\"\n\n\t\"example.test/polite\"\n)\n\nfunc main() { fmt.Println(polite.Text()) }\n",
			},
			source: pipelines.GoSource{Require: map[string]string{"example.test/greeting": "v1.0.0"}},
			fault:  "require asks for example.test/greeting@v1.0.0, but the program holds example.test/greeting@v1.1.0, which another module needs: replace forces a version",
		},
		{
			name:   "another go.mod",
			files:  next(),
			source: pipelines.GoSource{Modfile: "go.next.mod"},
			says:   "hello from the next one",
		},
		{
			name:   "a version beside files that tags leave out",
			files:  map[string]string{"plan/never.go": "//go:build never\n\npackage main\n\nimport _ \"example.test/nowhere\"\n"},
			source: pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "v1.1.0"}},
			says:   "hello from v1.1.0",
		},
		{
			name:   "another go.mod and a version",
			files:  next(),
			source: pipelines.GoSource{Modfile: "go.next.mod", Replace: map[string]string{"example.test/greeting": "v1.1.0"}},
			says:   "hello from v1.1.0",
		},
		{
			name:   "a version that does not exist",
			source: pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "v9.0.0"}},
			fault:  "v9.0.0",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorkbench(t).write(greeter()).write(c.files)
			before := filesBelow(t, w.root)
			if c.fault == "" {
				w.must(c.source, c.says)
			} else {
				wantFault(t, w, c.source, c.fault, false)
			}
			if after := filesBelow(t, w.root); !maps.Equal(before, after) {
				t.Errorf("the user's files were touched:\nbefore %v\nafter %v", before, after)
			}
		})
	}
}

// next has a go.mod of another name beside the one of greeter, with another greeting.
func next() map[string]string {
	return map[string]string{
		"plan/go.next.mod": greeter()["plan/go.mod"] + "\nreplace example.test/greeting => ../next\n",
		"next/go.mod":      "module example.test/greeting\n\ngo 1.21\n",
		"next/lib.go":      "package greeting\n\nfunc Text() string { return \"hello from the next one\" }\n",
	}
}

func TestAModuleWithoutAGoMod(t *testing.T) {
	w := newWorkbench(t).write(greeter()).write(next())
	if err := os.Remove(filepath.Join(w.root, "plan", "go.mod")); err != nil {
		t.Fatal(err)
	}
	before := filesBelow(t, w.root)
	first := w.must(pipelines.GoSource{Modfile: "go.next.mod"}, "hello from the next one")
	w.must(pipelines.GoSource{Modfile: "go.next.mod", Require: map[string]string{"example.test/greeting": "v1.1.0"},
		Replace: map[string]string{"example.test/greeting": "v1.2.0"}}, "hello from v1.2.0")
	if after := filesBelow(t, w.root); !maps.Equal(before, after) {
		t.Errorf("the user's files were touched:\nbefore %v\nafter %v", before, after)
	}
	w.write(map[string]string{"next/lib.go": "package greeting\n\nfunc Text() string { return \"changed\" }\n"})
	second := w.must(pipelines.GoSource{Modfile: "go.next.mod"}, "changed")
	w.write(map[string]string{"plan/go.next.sum": "\n"})
	third := w.must(pipelines.GoSource{Modfile: "go.next.mod"}, "changed")
	if first.Digest == second.Digest || second.Digest == third.Digest {
		t.Errorf("another source or other checksums are the same artifact: %s, %s, %s", first.Digest, second.Digest, third.Digest)
	}
}

// A file that no tag lets in needn't be Go, as in one of Testground's own plans; and nothing changes when it has lain there
// for a while.
func TestWhatTagsLeaveOutIsNotRead(t *testing.T) {
	w := newWorkbench(t).write(greeter()).write(map[string]string{"plan/never.go": "//go:build never\n\nthis is no Go.\n"})
	long := time.Now().Add(-time.Hour)
	for path := range filesBelow(t, filepath.Join(w.root, "plan")) {
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(w.root, "plan"), long, long); err != nil {
		t.Fatal(err)
	}
	w.must(pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "v1.1.0"}}, "hello from v1.1.0")
}

func TestALibraryThatNeedsCgo(t *testing.T) {
	w := newWorkbench(t).write(greeter()).write(map[string]string{
		"lib/go.mod": "module example.test/greeting\n\ngo 1.21\n",
		"lib/c.go":   "package greeting\n\nimport \"C\"\n\nfunc text() string { return \"from C\" }\n",
		"lib/lib.go": "package greeting\n\nfunc Text() string { return text() }\n",
	})
	source := pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "./lib"}}
	wantFault(t, w, source, "cgo is off", false)
}
