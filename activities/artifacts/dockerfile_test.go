package artifacts

import (
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// images is a workbench for a ground with images, where buildctl is a script.
func images(t *testing.T, buildctl string) *workbench {
	w := &workbench{T: t, store: New(filepath.Join(t.TempDir(), "home", "artifacts")), root: t.TempDir()}
	bin := t.TempDir()
	if buildctl != "" {
		if err := os.WriteFile(filepath.Join(bin, "buildctl"), []byte("#!/bin/sh\n"+buildctl), 0o755); err != nil {
			t.Fatal(err)
		}
		bin += ":/bin:/usr/bin"
	}
	t.Setenv("PATH", bin)
	return w
}

// said writes what buildctl was asked to a file beside the image.
const said = `for a in "$@"; do echo "$a" >> "$OUT/asked"; case "$a" in --output=*) dest=${a##*dest=};; esac; done
echo "#1 building" >&2
echo image > "$dest"`

func (w *workbench) image(source pipelines.Source) (stage.Artifact, error) {
	order := w.order(source)
	order.Images = true
	return w.store.Build(w.Context(), order)
}

func TestDockerfile(t *testing.T) {
	out := t.TempDir()
	t.Setenv("OUT", out)
	w := images(t, said).write(map[string]string{"app/build/Dockerfile": "FROM scratch\n", "app/src/a.txt": "1", "app/.git/HEAD": "x"})
	w.store.environ = os.Environ()
	source := pipelines.Source{Dockerfile: &pipelines.DockerfileSource{
		Context: "app", File: "build/Dockerfile", Target: "run", Args: map[string]string{"B": "2", "A": "1 and more"},
	}}
	first, err := w.image(source)
	if err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(first.Archive); err != nil || string(content) != "image\n" || first.Cached || first.Path != "" {
		t.Errorf("%+v: %q %v", first, content, err)
	}
	asked, err := os.ReadFile(filepath.Join(out, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(asked), "\n")
	for _, want := range []string{"build", "--local=context=" + filepath.Join(w.root, "app"), "--local=dockerfile=" + filepath.Join(w.root, "app/build"),
		"--opt=filename=Dockerfile", "--opt=target=run", "--opt=build-arg:A=1 and more", "--opt=build-arg:B=2"} {
		if !slices.Contains(lines, want) {
			t.Errorf("buildctl was not asked for %s, but\n%s", want, asked)
		}
	}
	again, err := w.image(source)
	if err != nil || !again.Cached || again.Archive != first.Archive {
		t.Errorf("built again: %+v %v", again, err)
	}
	w.write(map[string]string{"app/.git/HEAD": "y"})
	if same, err := w.image(source); err != nil || !same.Cached {
		t.Errorf("a commit made it another image: %+v %v", same, err)
	}
	for name, change := range map[string]func(){
		"a file":  func() { w.write(map[string]string{"app/src/a.txt": "22"}) },
		"a mode":  func() { _ = os.Chmod(filepath.Join(w.root, "app/src/a.txt"), 0o755) },
		"a link":  func() { _ = os.Symlink("a.txt", filepath.Join(w.root, "app/src/b.txt")) },
		"a build": func() { source.Dockerfile.Args["A"] = "2" },
	} {
		before, err := w.image(source)
		change()
		after, err2 := w.image(source)
		if err := errors.Join(err, err2); err != nil || before.Digest == after.Digest {
			t.Errorf("%s was changed and it is the same artifact (%v)", name, err)
		}
	}
}

func TestUnbuiltImages(t *testing.T) {
	dockerfile := pipelines.Source{Dockerfile: &pipelines.DockerfileSource{Context: "."}}
	failing := func(says string) string { return "cat >&2 <<'X'\n" + says + "\nX\nexit 1" }
	for _, test := range []struct {
		name, buildctl string
		source         pipelines.Source
		invalid        bool
		reason         string
	}{
		{"no buildctl", "", dockerfile, true, "there is no buildctl in PATH: install BuildKit"},
		{"no daemon", failing(`error: failed to list workers: Unavailable: connection error: desc = "transport: dial unix /run/x.sock"`), dockerfile, true,
			"no buildkitd answers buildctl: start one, or name its address in BUILDKIT_HOST"},
		{"instruction", failing("#5 [2/2] RUN make\n#5 ERROR: process\n\nerror: failed to solve: process \"/bin/sh -c make\" did not complete successfully: exit code: 2"),
			dockerfile, false, `process "/bin/sh -c make" did not complete successfully: exit code: 2`},
		{"base image away", failing("error: failed to solve: alpine: failed to do request: dial tcp: lookup registry-1.docker.io: no such host"),
			dockerfile, true, "no such host"},
		{"silent", "exit 1", dockerfile, false, "BuildKit failed and said nothing"},
		{"no Dockerfile", said, pipelines.Source{Dockerfile: &pipelines.DockerfileSource{Context: ".", File: "other"}}, false, "other does not exist"},
		{"no folder", said, pipelines.Source{Dockerfile: &pipelines.DockerfileSource{Context: "Dockerfile"}}, false, "is not a folder"},
		{"outside", said, pipelines.Source{Dockerfile: &pipelines.DockerfileSource{Context: ".."}}, false, "lies outside the repository root"},
		{"npm", said, pipelines.Source{NPM: &pipelines.NPMSource{Dir: "."}}, true, "its source is npm, which isn't built yet"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := images(t, test.buildctl).write(map[string]string{"Dockerfile": "FROM scratch\n"})
			_, err := w.image(test.source)
			var fault *Fault
			if !errors.As(err, &fault) || fault.Invalid != test.invalid || !strings.Contains(fault.Reason, test.reason) {
				t.Errorf("%v, want %q (invalid: %v)", err, test.reason, test.invalid)
			}
		})
	}
}

func TestImagesAreNamed(t *testing.T) {
	w := images(t, "")
	source := pipelines.Source{Image: &pipelines.ImageSource{Ref: "registry.test/x:v1"}}
	artifact, err := w.image(source)
	if err != nil || artifact.Image != "registry.test/x:v1" || artifact.Digest == "" || artifact.Path != "" {
		t.Errorf("%+v %v", artifact, err)
	}
	if _, err := w.store.Build(t.Context(), w.order(source)); err == nil {
		t.Error("an image was taken where instances are processes")
	}
}

// TestProgramsForNodes builds a Go program for nodes that are not of this machine's kind.
func TestProgramsForNodes(t *testing.T) {
	w := newWorkbench(t).write(map[string]string{"plan/go.mod": "module example.test/plan\n\ngo 1.21\n", "plan/main.go": "package main\n\nfunc main() {}\n"})
	order := w.order(pipelines.Source{Go: &pipelines.GoSource{Module: "plan"}})
	order.Images, order.Architecture = true, "arm64"
	artifact, err := w.store.Build(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	program, err := elf.Open(artifact.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	libraries, err := program.ImportedLibraries()
	if err != nil || len(libraries) > 0 || program.Machine != elf.EM_AARCH64 {
		t.Errorf("a program for %v that needs %v (%v)", program.Machine, libraries, err)
	}
}
