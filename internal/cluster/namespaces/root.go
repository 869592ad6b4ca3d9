//go:build linux

package namespaces

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Root says what differs on a machine from the host's files. All of it is kept below Folder, by its path.
type Root struct {
	Folder string
	// Layered folders are the host's; what the machine writes there goes to its own layer.
	Layered []string
	// Own folders are the machine's alone. They may lie in layered ones.
	Own []string
	// Fresh folders are the machine's alone, kept in memory.
	Fresh []string
	// Files are written in the end.
	Files map[string][]byte
}

// Mount mounts all of it in the namespace of the calling thread.
func (r Root) Mount() error {
	for _, at := range r.Layered {
		if err := r.layer(at); err != nil {
			return fmt.Errorf("laying a layer over %s: %w", at, err)
		}
	}
	for _, at := range r.Own {
		source := filepath.Join(r.Folder, "own", at)
		if err := makeAll(source, at); err != nil {
			return err
		}
		if err := unix.Mount(source, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting the machine's own %s: %w", at, err)
		}
	}
	for _, at := range r.Fresh {
		if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mounting a fresh %s: %w", at, err)
		}
	}
	for path, content := range r.Files {
		if err := replace(path, content); err != nil {
			return fmt.Errorf("writing the machine's %s: %w", path, err)
		}
	}
	return nil
}

func (r Root) layer(at string) error {
	upper, work := filepath.Join(r.Folder, "layers", at), filepath.Join(r.Folder, "work", at)
	if err := makeAll(upper, work); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", at, upper, work)
	return unix.Mount("overlay", at, "overlay", 0, options)
}

// replace writes a file that may have been a link elsewhere.
func replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

func makeAll(folders ...string) error {
	for _, folder := range folders {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	return nil
}
