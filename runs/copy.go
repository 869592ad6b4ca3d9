package runs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// CopyTree copies a file, or a folder with all that is in it, to a path where nothing is. File systems that can share
// blocks between files do so. Symbolic links are copied, not followed; files of the same inode are one file in the copy
// too; pipes, sockets and devices are left out. copied is called with the bytes so far, after each file. A source that
// isn't there is no error, and copies nothing.
func CopyTree(ctx context.Context, from, to string, copied func(bytes int64)) error {
	c := copying{from: from, to: to, linked: map[inode]string{}, copied: copied}
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return c.entry(ctx, path, entry)
	})
	if errors.Is(err, fs.ErrNotExist) && c.total == 0 && !exists(from) {
		return nil
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// inode is what files of several names have in common.
type inode struct{ device, number uint64 }

// copying is one tree on its way.
type copying struct {
	from, to string
	linked   map[inode]string // files of several names → where the first one went
	total    int64
	copied   func(bytes int64)
}

func (c *copying) entry(ctx context.Context, path string, entry fs.DirEntry) error {
	inside, err := filepath.Rel(c.from, path)
	if err != nil {
		return err
	}
	to := filepath.Join(c.to, inside)
	info, err := entry.Info()
	if err != nil {
		return err
	}
	switch {
	case entry.IsDir(): // an instance may have made it read-only
		return os.MkdirAll(to, info.Mode().Perm()|0o700)
	case entry.Type() == fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case !entry.Type().IsRegular():
		return nil
	}
	id, several := sharedInode(info)
	if first, done := c.linked[id]; several && done {
		return os.Link(first, to)
	}
	written, err := copyFile(ctx, path, to, info)
	if err != nil {
		return fmt.Errorf("copying %s: %w", path, err)
	}
	if several {
		c.linked[id] = to
	}
	c.total += written
	c.copied(c.total)
	return nil
}

// copyPiece is after how many bytes of a file a copy looks whether it is still wanted.
const copyPiece = 256 << 20

func copyFile(ctx context.Context, from, to string, info fs.FileInfo) (written int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm()|0o600)
	if err != nil {
		return 0, err
	}
	for err == nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			break
		}
		var n int64
		n, err = io.CopyN(out, in, copyPiece) // by copy_file_range, where the system has it
		written += n
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return written, err
	}
	return written, os.Chtimes(to, info.ModTime(), info.ModTime())
}
