package pipelines

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

var errNotInBundle = errors.New("it is not part of the bundle")

// disk reads files under a root folder, and nothing else: symbolic links can't lead out of it.
type disk struct {
	root *os.Root
}

// openDisk opens the root for a file, and gives the file's path relative to it.
func openDisk(file, root string) (*disk, string, error) {
	wrong := func(format string, args ...any) error {
		return Faults{{File: file, Message: fmt.Sprintf(format, args...)}}
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return nil, "", wrong("can't be found: %v", err)
	}
	if root == "" {
		root = gitRoot(filepath.Dir(absolute))
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, "", wrong("the root can't be found: %v", err)
	}
	rel, err := filepath.Rel(root, absolute)
	if err != nil || !filepath.IsLocal(rel) {
		rel, err = relReal(root, absolute)
	}
	if err != nil || !filepath.IsLocal(rel) {
		return nil, "", wrong("lies outside the repository root %s", root)
	}
	opened, err := os.OpenRoot(root)
	if err != nil {
		return nil, "", wrong("the repository root %s can't be opened: %s", root, cause(err))
	}
	return &disk{opened}, filepath.ToSlash(rel), nil
}

// relReal compares the real paths, for a root that is itself named through a symbolic link.
func relReal(root, file string) (string, error) {
	realRoot, err := filepath.EvalSymlinks(root)
	if err != nil {
		return "", err
	}
	folder, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return "", err
	}
	return filepath.Rel(realRoot, filepath.Join(folder, filepath.Base(file)))
}

// gitRoot is the nearest folder upwards that holds .git, else the folder itself.
func gitRoot(folder string) string {
	for dir := folder; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return folder
		}
	}
}

func (d *disk) close() { _ = d.root.Close() }

// read returns a file's text; of one that is too large, just enough to tell.
func (d *disk) read(name string) (string, error) {
	// Asked first, because opening a pipe would wait for its other end.
	if info, err := d.root.Stat(filepath.FromSlash(name)); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return "", errors.New("it is not a regular file")
	}
	f, err := d.root.Open(filepath.FromSlash(name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	return string(data), err
}

// escapes says whether a path leads out of the root through a symbolic link.
func (d *disk) escapes(name string) bool {
	_, err := d.root.Stat(filepath.FromSlash(name))
	return err != nil && !errors.Is(err, fs.ErrNotExist) && strings.Contains(err.Error(), "escapes")
}

// cause is the last part of an error: what is wrong, without the path that the message names anyway.
func cause(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		if strings.Contains(p.Err.Error(), "escapes") {
			return "it leads outside the repository root through a symbolic link"
		}
		return p.Err.Error()
	}
	return err.Error()
}
