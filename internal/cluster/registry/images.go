package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Program is an image that holds one static program and nothing else.
func Program(file string, env ...string) (v1.Image, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	at := "/" + filepath.Base(file)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: at[1:], Mode: 0o755, Size: int64(len(content))})
		if err == nil {
			_, err = w.Write(content)
		}
		if err == nil {
			err = w.Close()
		}
		return io.NopCloser(&b), err
	})
	if err != nil {
		return nil, fmt.Errorf("making a layer of %s: %w", file, err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("making an image of %s: %w", file, err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Entrypoint, config.Config.Env, config.Config.User = []string{at}, env, "65535:65535"
	return mutate.ConfigFile(image, config)
}

// Push brings an image into a registry and returns its name with its digest.
func Push(ctx context.Context, image v1.Image, as string) (string, error) {
	reference, err := name.ParseReference(as)
	if err != nil {
		return "", err
	}
	if err := remote.Write(reference, image, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("pushing %s: %w", as, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return "", err
	}
	return reference.Context().Name() + "@" + digest.String(), nil
}

// Load reads an image from an archive as `docker save` writes it.
func Load(archive string) (v1.Image, error) {
	image, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the image archive %s: %w", archive, err)
	}
	return image, nil
}
