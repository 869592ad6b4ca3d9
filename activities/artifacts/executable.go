package artifacts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// takeExecutable copies an existing file into the store, so that a run goes on with what it started with when the file
// is changed under it.
func (s *Store) takeExecutable(ctx context.Context, order Order, source pipelines.ExecutableSource) (stage.Artifact, error) {
	path, fault := inside(order.Root, source.Path)
	if fault != nil {
		return stage.Artifact{}, fault
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return stage.Artifact{}, wrong("%s can't be read: %v", source.Path, err)
	case !info.Mode().IsRegular():
		return stage.Artifact{}, wrong("%s is not a file", source.Path)
	case info.Mode().Perm()&0o111 == 0:
		return stage.Artifact{}, wrong("%s is not executable: try chmod +x %s", source.Path, source.Path)
	}
	index := openIndex(s.indexPath(path))
	sum, err := index.hash(path)
	if err != nil {
		return stage.Artifact{}, wrong("%s can't be read: %v", source.Path, err)
	}
	if err := index.save(); err != nil {
		return stage.Artifact{}, err
	}
	inputs, err := json.Marshal(map[string]any{"kind": "executable", "content": sum.SHA256})
	if err != nil {
		return stage.Artifact{}, fmt.Errorf("describing %s: %w", source.Path, err)
	}
	digest := hexSum(inputs)
	program, cached, err := s.obtain(ctx, order, digest, inputs, func(folder string) error {
		order.note("copying " + source.Path)
		return copyExact(path, sum.SHA256, filepath.Join(folder, programName))
	})
	if err != nil {
		return stage.Artifact{}, err
	}
	return stage.Artifact{Name: order.Name, Digest: digest, Path: program, Args: source.Args, Cached: cached}, nil
}

// copyExact copies a file and makes sure that it is still the one with that hash.
func copyExact(path, want, to string) error {
	from, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("copying an executable: %w", err)
	}
	defer from.Close()
	if err := copyFile(from, to); err != nil {
		return fmt.Errorf("copying an executable: %w", err)
	}
	got, err := sumFile(to)
	if err != nil {
		return fmt.Errorf("copying an executable: %w", err)
	}
	if got != want {
		return fmt.Errorf("%s changed while it was copied", path)
	}
	return nil
}

// sumFile is the hex SHA-256 of a file's content.
func sumFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
