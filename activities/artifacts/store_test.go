package artifacts

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
)

// workbench is a store and a repository, with a module proxy in a folder: no network is needed.
type workbench struct {
	*testing.T
	store *Store
	root  string
	notes []string
}

func newWorkbench(t *testing.T) *workbench {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command in PATH to build with")
	}
	w := &workbench{T: t, store: New(filepath.Join(t.TempDir(), "home", "artifacts")), root: t.TempDir()}
	w.store.environ = append(w.store.environ,
		"GOPROXY=file://"+filepath.ToSlash(moduleProxy(t)), "GONOSUMDB=*", "GOMODCACHE="+filepath.Join(t.TempDir(), "mod"), "GOFLAGS=-modcacherw -tags=never")
	return w
}

// write puts files into the repository; a name ends where its content begins.
func (w *workbench) write(files map[string]string) *workbench {
	w.Helper()
	for name, content := range files {
		path := filepath.Join(w.root, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			w.Fatal(err)
		}
	}
	return w
}

func (w *workbench) order(source pipelines.Source) Order {
	return Order{
		Name: "peer", Source: source, Root: w.root, Log: filepath.Join(filepath.Dir(w.store.dir), "build-peer.log"),
		Note: func(text string) { w.notes = append(w.notes, text) },
	}
}

func (w *workbench) build(source pipelines.GoSource) (stage.Artifact, error) {
	w.Helper()
	if source.Module == "" {
		source.Module = "plan"
	}
	return w.store.Build(w.Context(), w.order(pipelines.Source{Go: &source}))
}

// must builds, runs the program and checks what it says.
func (w *workbench) must(source pipelines.GoSource, says string) stage.Artifact {
	w.Helper()
	artifact, err := w.build(source)
	if err != nil {
		w.Fatalf("building: %v", err)
	}
	out, err := exec.Command(artifact.Path, artifact.Args...).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != says {
		w.Fatalf("the program said %q (%v), want %q", out, err, says)
	}
	return artifact
}

// moduleProxy is a GOPROXY with example.test/greeting v1.0.0 to v1.2.0, and example.test/polite v1.0.0, which needs
// greeting v1.1.0.
func moduleProxy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, version := range []string{"v1.0.0", "v1.1.0", "v1.2.0"} {
		addModule(t, dir, "example.test/greeting", version, map[string]string{
			"go.mod":      "module example.test/greeting\n\ngo 1.21\n",
			"greeting.go": fmt.Sprintf("package greeting\n\nfunc Text() string { return \"hello from %s\" }\n", version),
		})
	}
	addModule(t, dir, "example.test/polite", "v1.0.0", map[string]string{
		"go.mod":    "module example.test/polite\n\ngo 1.21\n\nrequire example.test/greeting v1.1.0\n",
		"polite.go": "package polite\n\nimport \"example.test/greeting\"\n\nfunc Text() string { return \"please: \" + greeting.Text() }\n",
	})
	return dir
}

func addModule(t *testing.T, proxy, path, version string, files map[string]string) {
	t.Helper()
	dir := filepath.Join(proxy, filepath.FromSlash(path), "@v")
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := z.Create(path + "@" + version + "/" + name)
		if err == nil {
			_, err = f.Write([]byte(files[name]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	list, _ := os.ReadFile(filepath.Join(dir, "list"))
	err := errors.Join(z.Close(), os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, version+".info"), fmt.Appendf(nil, `{"Version":%q,"Time":"2024-01-01T00:00:00Z"}`, version), 0o644),
		os.WriteFile(filepath.Join(dir, version+".mod"), []byte(files["go.mod"]), 0o644),
		os.WriteFile(filepath.Join(dir, version+".zip"), archive.Bytes(), 0o644),
		os.WriteFile(filepath.Join(dir, "list"), append(list, version+"\n"...), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

const printer = "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(text) }\n"

// plain is a module without dependencies.
func plain(text string) map[string]string {
	return map[string]string{
		"plan/go.mod":  "module example.test/plan\n\ngo 1.21\n",
		"plan/main.go": printer,
		"plan/text.go": fmt.Sprintf("package main\n\nconst text = %q\n", text),
	}
}

// greeter is a module that needs example.test/greeting v1.0.0; its go.sum is empty, so that only an overriding build,
// which may add to its own, can build it.
func greeter() map[string]string {
	return map[string]string{
		"plan/go.mod":  "module example.test/plan\n\ngo 1.21\n\nrequire example.test/greeting v1.0.0\n",
		"plan/main.go": "package main\n\nimport (\n\t\"fmt\"\n\n\t\"example.test/greeting\"\n)\n\nfunc main() { fmt.Println(greeting.Text()) }\n",
	}
}

func TestTheSameIsNotBuiltTwice(t *testing.T) {
	w := newWorkbench(t).write(plain("one"))
	first := w.must(pipelines.GoSource{}, "one")
	if first.Cached || first.Name != "peer" || len(first.Digest) != 64 {
		t.Errorf("the first build gave %+v", first)
	}
	second := w.must(pipelines.GoSource{}, "one")
	if !second.Cached || second.Digest != first.Digest || second.Path != first.Path {
		t.Errorf("the second build gave %+v after %+v", second, first)
	}
	if slices.Index(w.notes, "compiling peer") != len(w.notes)-1 {
		t.Errorf("compiled more than once: %q", w.notes)
	}
}

func TestTheSameSourcesElsewhereAreTheSameArtifact(t *testing.T) {
	w := newWorkbench(t).write(plain("one"))
	first := w.must(pipelines.GoSource{}, "one")
	w.root = t.TempDir()
	second := w.write(plain("one")).must(pipelines.GoSource{}, "one")
	if second.Digest != first.Digest || !second.Cached {
		t.Errorf("another folder gave another artifact: %+v, %+v", first, second)
	}
}

// TestDigest changes one thing after the other and tells which of them make another artifact.
func TestDigest(t *testing.T) {
	base := func() map[string]string {
		files := plain("one")
		files["plan/README.md"] = "about"
		files["plan/text_test.go"] = "package main\n"
		files["plan/nested/go.mod"] = "module example.test/nested\n"
		files["plan/nested/nested.go"] = "package nested\n"
		return files
	}
	embedding := base()
	embedding["plan/embed.go"] = "package main\n\nimport _ \"embed\"\n\n//go:embed README.md\nvar about string\n"
	replacing := base()
	replacing["plan/go.mod"] += "\nrequire example.test/lib v0.0.0\n\nreplace example.test/lib => ../lib\n"
	replacing["plan/lib.go"] = "package main\n\nimport _ \"example.test/lib\"\n"
	replacing["lib/go.mod"] = "module example.test/lib\n\ngo 1.21\n"
	replacing["lib/lib.go"] = "package lib\n"

	for _, c := range []struct {
		name   string
		files  map[string]string
		change map[string]string
		source pipelines.GoSource
		other  bool
	}{
		{name: "nothing"},
		{name: "a source file", change: map[string]string{"plan/text.go": "package main\n\nconst text = \"two\"\n"}, other: true},
		{name: "a new source file", change: map[string]string{"plan/more.go": "package main\n"}, other: true},
		{name: "go.mod", change: map[string]string{"plan/go.mod": "module example.test/plan\n\ngo 1.22\n"}, other: true},
		{name: "a test file", change: map[string]string{"plan/text_test.go": "package main // changed\n"}},
		{name: "a file that nothing embeds", change: map[string]string{"plan/README.md": "changed"}},
		{name: "a file that something embeds", files: embedding, change: map[string]string{"plan/README.md": "changed"}, other: true},
		{name: "a module below", change: map[string]string{"plan/nested/nested.go": "package nested // changed\n"}},
		{name: "another folder of the repository", change: map[string]string{"elsewhere/x.go": "package x\n"}},
		{name: "a replaced module", files: replacing, change: map[string]string{"lib/lib.go": "package lib\n\nvar X int\n"}, other: true},
		{name: "git's own", change: map[string]string{"plan/.git/x.go": "package x\n"}},
		{name: "tags", source: pipelines.GoSource{Tags: []string{"x"}}, other: true},
		{name: "flags", source: pipelines.GoSource{Flags: []string{"-ldflags=-s -w"}}, other: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorkbench(t)
			if c.files == nil {
				c.files = base()
			}
			before, err := w.write(c.files).build(pipelines.GoSource{})
			if err != nil {
				t.Fatal(err)
			}
			after, err := w.write(c.change).build(c.source)
			if err != nil {
				t.Fatal(err)
			}
			if other := after.Digest != before.Digest; other != c.other {
				t.Errorf("another artifact: %v, want %v", other, c.other)
			}
		})
	}
}

// filesBelow reads every file below a folder.
func filesBelow(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func wantFault(t *testing.T, w *workbench, source pipelines.GoSource, reason string, invalid bool) {
	t.Helper()
	artifact, err := w.build(source)
	var fault *Fault
	if !errors.As(err, &fault) {
		t.Fatalf("got %+v, %v, want a fault", artifact, err)
	}
	if !strings.Contains(fault.Reason, reason) || fault.Invalid != invalid {
		t.Errorf("got the fault %q (invalid: %v)\nwant %q (invalid: %v)", fault.Reason, fault.Invalid, reason, invalid)
	}
	left, err := filepath.Glob(filepath.Join(w.store.dir, ".making-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestReasons compares what a person reads of a build that can't be with testdata/reasons.golden.
func TestReasons(t *testing.T) {
	executable := func(path string) pipelines.Source {
		return pipelines.Source{Executable: &pipelines.ExecutableSource{Path: path}}
	}
	module := func(source pipelines.GoSource) pipelines.Source {
		if source.Module == "" {
			source.Module = "plan"
		}
		return pipelines.Source{Go: &source}
	}
	var got strings.Builder
	for _, c := range []struct {
		name   string
		files  map[string]string
		source pipelines.Source
	}{
		{"does not compile", map[string]string{"plan/text.go": "package main\n\nfunc x() { y() }\n"}, module(pipelines.GoSource{})},
		{"many errors", map[string]string{"plan/text.go": "package main\n\nvar a, b, c, d, e = A, B, C, D, E\n"}, module(pipelines.GoSource{})},
		{"is not a main package", map[string]string{"plan/lib/lib.go": "package lib\n"}, module(pipelines.GoSource{Package: "./lib"})},
		{"no such package", nil, module(pipelines.GoSource{Package: "./nowhere"})},
		{"no go.mod", map[string]string{"other/main.go": printer}, module(pipelines.GoSource{Module: "other"})},
		{"only another go.mod", map[string]string{"other/main.go": printer, "other/go.next.mod": "module x\n"}, module(pipelines.GoSource{Module: "other"})},
		{"a modfile that isn't there", nil, module(pipelines.GoSource{Modfile: "go.next.mod"})},
		{"a modfile outside", nil, module(pipelines.GoSource{Modfile: "../go.mod"})},
		{"no such folder", nil, module(pipelines.GoSource{Module: "nowhere"})},
		{"leads out", nil, module(pipelines.GoSource{Module: "../plan"})},
		{"missing module", map[string]string{"plan/go.mod": "module example.test/plan\n\ngo 1.21\n\nrequire example.test/greeting v1.0.0\n", "plan/x.go": "package main\n\nimport _ \"example.test/greeting\"\n"}, module(pipelines.GoSource{})},
		{"broken go.mod", map[string]string{"plan/go.mod": "modul x\n"}, module(pipelines.GoSource{})},
		{"a go.mod for a later Go", map[string]string{"plan/go.mod": "module example.test/plan\n\ngo 1.999\n"}, module(pipelines.GoSource{})},
		{"-toolexec", nil, module(pipelines.GoSource{Flags: []string{"-toolexec=/bin/sh"}})},
		{"-exec", nil, module(pipelines.GoSource{Flags: []string{"-exec", "/bin/sh"}})},
		{"-overlay", nil, module(pipelines.GoSource{Flags: []string{"--overlay=x.json"}})},
		{"-o", nil, module(pipelines.GoSource{Flags: []string{"-o", "/tmp/x"}})},
		{"a linker of its own", nil, module(pipelines.GoSource{Flags: []string{"-ldflags=-s -extld=/bin/sh"}})},
		{"a compiler that writes", nil, module(pipelines.GoSource{Flags: []string{"-gcflags=all=-cpuprofile=/tmp/x"}})},
		{"-race without cgo", nil, module(pipelines.GoSource{Flags: []string{"-race"}})},
		{"a flag as a package", nil, module(pipelines.GoSource{Package: "-toolexec=x"})},
		{"a flag as a tag", nil, module(pipelines.GoSource{Tags: []string{"a -exec=x"}})},
		{"a flag as a version", nil, module(pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "-x"}})},
		{"a replace that leads out", nil, module(pipelines.GoSource{Replace: map[string]string{"example.test/greeting": "../x"}})},
		{"no such executable", nil, executable("bin/peer")},
		{"an executable that isn't", map[string]string{"bin/peer": "x"}, executable("bin/peer")},
		{"a folder", map[string]string{"bin/peer": "x"}, executable("bin")},
		{"an executable outside", nil, executable("../../bin/sh")},
		{"an image", nil, pipelines.Source{Image: &pipelines.ImageSource{Ref: "x"}}},
		{"a dockerfile", nil, pipelines.Source{Dockerfile: &pipelines.DockerfileSource{Context: "."}}},
		{"npm", nil, pipelines.Source{NPM: &pipelines.NPMSource{Dir: "."}}},
		{"nothing", nil, pipelines.Source{}},
	} {
		w := newWorkbench(t).write(plain("x")).write(c.files)
		_, err := w.store.Build(t.Context(), w.order(c.source))
		var fault *Fault
		if !errors.As(err, &fault) {
			t.Errorf("%s: got %v, want a fault", c.name, err)
			continue
		}
		kind := "failed"
		if fault.Invalid {
			kind = "invalid"
		}
		reason := strings.NewReplacer(w.root, "ROOT", w.store.dir, "STORE").Replace(fault.Reason)
		fmt.Fprintf(&got, "%s\n\t%s: %s\n", c.name, kind, runningGo.ReplaceAllString(reason, "running go VERSION"))
	}
	golden.Compare(t, "testdata/reasons.golden", got.String())
}

func TestTheCompilersOutputIsKept(t *testing.T) {
	w := newWorkbench(t).write(plain("x")).write(map[string]string{"plan/text.go": "package main\n\nvar a, b, c, d, e = A, B, C, D, E\n"})
	wantFault(t, w, pipelines.GoSource{}, "undefined: A", false)
	log, err := os.ReadFile(filepath.Join(filepath.Dir(w.store.dir), "build-peer.log"))
	if err != nil || !strings.Contains(string(log), "undefined: E") {
		t.Errorf("the log holds %q, %v", log, err)
	}
}

func TestNoGoCommand(t *testing.T) {
	w := newWorkbench(t).write(plain("x"))
	t.Setenv("PATH", t.TempDir())
	wantFault(t, w, pipelines.GoSource{}, "install Go from https://go.dev/dl", true)
}

func TestAProxyThatIsAway(t *testing.T) {
	w := newWorkbench(t).write(greeter())
	w.store.environ = append(w.store.environ, "GOPROXY=http://127.0.0.1:1")
	wantFault(t, w, pipelines.GoSource{Require: map[string]string{"example.test/greeting": "v1.0.0"}}, "127.0.0.1:1", true)
}

func TestExecutable(t *testing.T) {
	w := newWorkbench(t).write(map[string]string{"bin/peer": "#!/bin/sh\necho \"$@\"\n"})
	path := filepath.Join(w.root, "bin/peer")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	source := pipelines.Source{Executable: &pipelines.ExecutableSource{Path: "bin/peer", Args: []string{"a", "b c"}}}
	build := func() stage.Artifact {
		artifact, err := w.store.Build(t.Context(), w.order(source))
		if err != nil {
			t.Fatal(err)
		}
		return artifact
	}
	first := build()
	if out, err := exec.Command(first.Path, first.Args...).Output(); err != nil || string(out) != "a b c\n" {
		t.Errorf("it said %q, %v", out, err)
	}
	if second := build(); !second.Cached || second.Path != first.Path {
		t.Errorf("copied twice: %+v", second)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(first.Path).Run(); err != nil {
		t.Errorf("the first artifact changed with the file: %v", err)
	}
	if third := build(); third.Digest == first.Digest || third.Cached {
		t.Errorf("a changed file gave %+v", third)
	}
}

func TestSymbolicLinkOutOfTheRoot(t *testing.T) {
	w := newWorkbench(t)
	outside := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(outside, "peer"), []byte("#!/bin/sh\n"), 0o755), os.Symlink(outside, filepath.Join(w.root, "bin"))); err != nil {
		t.Fatal(err)
	}
	_, err := w.store.Build(t.Context(), w.order(pipelines.Source{Executable: &pipelines.ExecutableSource{Path: "bin/peer"}}))
	if err == nil || !strings.Contains(err.Error(), "leads outside the repository root through a symbolic link") {
		t.Errorf("got %v", err)
	}
}

func TestCancel(t *testing.T) {
	w := newWorkbench(t).write(plain("x"))
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	order := w.order(pipelines.Source{Go: &pipelines.GoSource{Module: "plan"}})
	order.Note = func(string) { cancel(gone) }
	if artifact, err := w.store.Build(ctx, order); !errors.Is(err, gone) {
		t.Errorf("got %+v, %v", artifact, err)
	}
}

// runningGo matches the version of the go command in what it says.
var runningGo = regexp.MustCompile(`running go [0-9.]+`)

func TestSourcesThatChangeWhileTheyAreCompiled(t *testing.T) {
	w := newWorkbench(t).write(plain("one"))
	order := w.order(pipelines.Source{Go: &pipelines.GoSource{Module: "plan"}})
	order.Note = func(string) { w.write(plain("two")) }
	artifact, err := w.store.Build(t.Context(), order)
	var fault *Fault
	if err == nil || errors.As(err, &fault) || !strings.Contains(err.Error(), "changed while they were compiled") {
		t.Fatalf("got %+v, %v", artifact, err)
	}
	w.must(pipelines.GoSource{}, "two")
	w.write(plain("one")).must(pipelines.GoSource{}, "one")
}

func TestCgo(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("there is no C compiler to build with")
	}
	w := newWorkbench(t).write(map[string]string{
		"plan/go.mod":  "module example.test/plan\n\ngo 1.21\n",
		"plan/main.go": "package main\n\n// #include \"text.h\"\nimport \"C\"\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(C.TEXT) }\n",
		"plan/text.h":  "#define TEXT \"from C\"\n",
	})
	first := w.must(pipelines.GoSource{Cgo: true}, "from C")
	w.write(map[string]string{"plan/text.h": "#define TEXT \"from a header\"\n"})
	if second := w.must(pipelines.GoSource{Cgo: true}, "from a header"); second.Digest == first.Digest {
		t.Error("a header that changed gave the same digest")
	}
}

func TestTags(t *testing.T) {
	w := newWorkbench(t).write(plain("without")).write(map[string]string{
		"plan/text.go":          "//go:build !special\n\npackage main\n\nconst text = \"without\"\n",
		"plan/with.go":          "//go:build special\n\npackage main\n\nconst text = \"with\"\n",
		"plan/cmd/peer/main.go": printer,
		"plan/cmd/peer/text.go": "package main\n\nvar text = \"linked\"\n",
	})
	w.must(pipelines.GoSource{}, "without")
	w.must(pipelines.GoSource{Tags: []string{"special"}}, "with")
	w.must(pipelines.GoSource{Package: "./cmd/peer"}, "linked")
	w.must(pipelines.GoSource{Package: "./cmd/peer", Flags: []string{"-ldflags", "-s -w -X main.text=stamped"}}, "stamped")
}
