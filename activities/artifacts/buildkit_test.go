//go:build buildkit

package artifacts

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/groundplan/groundplan/pipelines"
)

// TestBuildKit has a real BuildKit build, that of BUILDKIT_HOST; twice from nothing it is the same image. It takes a
// buildkitd and `go test -tags buildkit`.
func TestBuildKit(t *testing.T) {
	var digests []string
	for range 2 {
		w := &workbench{T: t, store: New(filepath.Join(t.TempDir(), "home", "artifacts")), root: t.TempDir()}
		w.write(map[string]string{
			"app/Dockerfile": "FROM scratch AS first\nARG WORD\nLABEL word=$WORD\nCOPY a.txt /a.txt\nENTRYPOINT [\"/a.txt\", \"now\"]\nFROM first\nCOPY a.txt /b.txt\n",
			"app/a.txt":      "content",
		})
		artifact, err := w.image(pipelines.Source{Dockerfile: &pipelines.DockerfileSource{Context: "app", Target: "first", Args: map[string]string{"WORD": "two words"}}})
		if err != nil {
			t.Fatal(err)
		}
		image, err := tarball.ImageFromPath(artifact.Archive, nil)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil || config.Config.Labels["word"] != "two words" || len(config.Config.Entrypoint) != 2 || len(config.RootFS.DiffIDs) != 1 {
			t.Errorf("%+v %v", config, err)
		}
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("built twice, it is %s and %s", digests[0], digests[1])
	}
	w := &workbench{T: t, store: New(filepath.Join(t.TempDir(), "home", "artifacts")), root: t.TempDir()}
	w.write(map[string]string{"Dockerfile": "FROM scratch\nCOPY missing /x\n"})
	_, err := w.image(pipelines.Source{Dockerfile: &pipelines.DockerfileSource{Context: "."}})
	var fault *Fault
	if !errors.As(err, &fault) || fault.Invalid || !strings.Contains(fault.Reason, "missing") {
		t.Errorf("a file that isn't there: %v", err)
	}
}
