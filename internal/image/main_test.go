package main

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/groundplan/groundplan/activities/images"
)

// TestPlaces makes an image of small files in place of the programs, and looks where everything is.
func TestPlaces(t *testing.T) {
	folder := t.TempDir()
	small := func(_ context.Context, _, source, to string) error {
		return os.WriteFile(to, []byte("program of "+source), 0o700)
	}
	certificates := filepath.Join(folder, "ca.crt")
	if err := os.WriteFile(certificates, []byte("certificates"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := order{architecture: "arm64", certificates: certificates}
	var digests []v1.Hash
	for range 2 {
		image, err := assemble(t.Context(), o, t.TempDir(), small)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != "arm64" || config.Config.User != images.Nobody || len(config.Config.Entrypoint) != 1 {
			t.Errorf("%+v", config)
		}
		files := contents(t, image)
		for path, want := range map[string]string{
			"bin/groundplan": "program of ./cmd/groundplan", "supervisor": "program of ./cmd/groundplan-supervisor",
			"etc/ssl/certs/ca-certificates.crt": "certificates",
		} {
			if files[path] != want {
				t.Errorf("%s is %q", path, files[path])
			}
		}
		if _, there := files[config.Config.Entrypoint[0][1:]]; !there {
			t.Errorf("the entrypoint %s isn't there", config.Config.Entrypoint[0])
		}
		for path := range files {
			if path == "groundplan" || strings.HasPrefix(path, "groundplan/") {
				t.Errorf("%s is in the way: pods mount their volume at /groundplan", path)
			}
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("made twice, it is %s and %s", digests[0], digests[1])
	}
}

func contents(t *testing.T, image v1.Image) map[string]string {
	from := mutate.Extract(image)
	defer from.Close()
	files := map[string]string{}
	for archive := tar.NewReader(from); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(content)
	}
}

// TestSupervisorIsSmall builds the real supervisor: it is copied into every pod.
func TestSupervisorIsSmall(t *testing.T) {
	to := filepath.Join(t.TempDir(), "supervisor")
	t.Chdir("../..")
	if err := build(t.Context(), "amd64", "./cmd/groundplan-supervisor", to); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(to)
	if err != nil {
		t.Fatal(err)
	}
	if most := int64(8 << 20); info.Size() > most {
		t.Errorf("the supervisor has %d bytes, more than %d", info.Size(), most)
	}
	if err := images.Runnable(to, "amd64"); err != nil {
		t.Error(err)
	}
}

func TestOrders(t *testing.T) {
	for _, test := range []struct {
		order order
		says  string
	}{
		{order{}, "say where it goes"},
		{order{push: "x/y:z", tar: "file"}, "say where it goes"},
		{order{push: "Upper/Case:z"}, "is not the reference of an image"},
	} {
		if err := carryOut(t.Context(), test.order); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: %v, want %q", test.order, err, test.says)
		}
	}
}
