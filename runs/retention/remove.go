package retention

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// goneMark begins the name of what is being removed. No run, suite or artifact can be called so.
const goneMark = "~gone-"

// Bin removes entries of one folder, in two steps: what is put aside is gone to everybody at once, whatever becomes of the
// process then, and emptying the bin may take its time. Nothing outside the folder is touched, whatever symbolic links say.
type Bin struct{ root *os.Root }

// OpenBin opens the bin of a folder; nil when there is no such folder. Whoever asks closes it.
func OpenBin(folder string) (*Bin, error) {
	root, err := os.OpenRoot(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", folder, err)
	}
	return &Bin{root}, nil
}

// Close closes the bin; what is in it stays until somebody empties it.
func (b *Bin) Close() error { return b.root.Close() }

// PutAside takes an entry away. One that isn't there is no error.
func (b *Bin) PutAside(name string) error {
	err := b.root.Rename(name, goneMark+name+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("putting %s aside: %w", name, err)
	}
	return nil
}

// PutBack undoes PutAside, where the name isn't taken meanwhile; undone says whether it did.
func (b *Bin) PutBack(name string) (undone bool, err error) {
	aside, err := b.aside()
	if err != nil {
		return false, err
	}
	for _, gone := range aside {
		of, _, _ := cutLast(strings.TrimPrefix(gone, goneMark), "-")
		if of != name {
			continue
		}
		if _, err := b.root.Lstat(name); err == nil {
			return false, nil
		}
		if err := b.root.Rename(gone, name); err != nil {
			return false, fmt.Errorf("putting %s back: %w", name, err)
		}
		return true, nil
	}
	return false, nil
}

func cutLast(text, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(text, sep); i >= 0 {
		return text[:i], text[i+len(sep):], true
	}
	return text, "", false
}

// Empty removes what was put aside, by this process or one before it.
func (b *Bin) Empty() error {
	aside, err := b.aside()
	if err != nil {
		return err
	}
	var faults []error
	for _, name := range aside {
		if err := b.removeAll(name); err != nil {
			faults = append(faults, fmt.Errorf("removing %s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

func (b *Bin) aside() ([]string, error) {
	folder, err := b.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var aside []string
	for _, name := range names {
		if strings.HasPrefix(name, goneMark) {
			aside = append(aside, name)
		}
	}
	return aside, nil
}

// removeAll removes a tree, also where an instance has left folders that it made read-only.
func (b *Bin) removeAll(name string) error {
	if err := b.root.RemoveAll(name); err == nil {
		return nil
	}
	_ = fs.WalkDir(b.root.FS(), name, func(path string, entry fs.DirEntry, _ error) error {
		if entry != nil && entry.IsDir() {
			_ = b.root.Chmod(path, 0o700)
		}
		return nil
	})
	return b.root.RemoveAll(name)
}

// Usage is what a folder takes on the disk, each file of several names counted once, and when something in it was last
// changed. It is an error where a part of it can't be looked at; what is known is returned beside it.
func Usage(folder string) (bytes int64, changed time.Time, err error) {
	var faults []error
	seen := map[inode]bool{}
	walk := filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		if err != nil {
			faults = append(faults, err)
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		if info.ModTime().After(changed) {
			changed = info.ModTime()
		}
		id, size, several := onDisk(info)
		if several && seen[id] {
			return nil
		}
		seen[id] = several
		bytes += size
		return nil
	})
	return bytes, changed, errors.Join(append(faults, walk)...)
}

// inode is what files of several names have in common.
type inode struct{ device, number uint64 }
