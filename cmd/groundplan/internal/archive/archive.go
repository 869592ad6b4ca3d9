// Package archive takes the folder of a run elsewhere: into another folder or a compressed tar file.
package archive

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Result says what was taken.
type Result struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Left names what was left behind: links, sockets and devices, which mean nothing elsewhere or lead out of the run.
	Left []string `json:"left,omitempty"`
}

// sink takes what the walk finds. Names use forward slashes and lie inside the run's folder.
type sink interface {
	folder(name string, info fs.FileInfo) error
	file(name string, info fs.FileInfo, content io.Reader) error
}

// skipped are entries of a run's folder that are of no use elsewhere.
var skipped = map[string]bool{"temp": true}

// Copy copies the run's folder to dir, which is made and must be empty.
func Copy(from, dir string) (Result, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Result{}, fmt.Errorf("looking into %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return Result{}, fmt.Errorf("%s is not empty: name a folder that is or that doesn't exist", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Result{}, fmt.Errorf("making %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Result{}, fmt.Errorf("opening %s: %w", dir, err)
	}
	defer root.Close()
	return walk(from, &copier{root: root})
}

// Pack writes the run's folder as a gzipped tar file whose entries begin with name/. The file appears whole or not at
// all, and replaces nothing.
func Pack(from, name, file string) (_ Result, err error) {
	if _, err := os.Lstat(file); err == nil {
		return Result{}, fmt.Errorf("%s is there already: name another file, or remove it", file)
	}
	temp, err := os.CreateTemp(filepath.Dir(file), ".groundplan-*")
	if err != nil {
		return Result{}, fmt.Errorf("making %s: %w", file, err)
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone by its new name once all went well
	defer temp.Close()
	zip := gzip.NewWriter(temp)
	out := tar.NewWriter(zip)
	result, err := walk(from, &packer{out: out, prefix: name})
	if err = errors.Join(err, out.Close(), zip.Close(), temp.Chmod(0o644), temp.Close()); err != nil {
		return Result{}, fmt.Errorf("writing %s: %w", file, err)
	}
	// A link fails where a rename would replace what has come meanwhile.
	if err := os.Link(temp.Name(), file); err != nil {
		return Result{}, fmt.Errorf("writing %s: %w", file, err)
	}
	return result, nil
}

// walk hands every folder and regular file to s. It reads through os.Root: an instance may have put links among its
// outputs, and none of them leads anywhere.
func walk(from string, s sink) (Result, error) {
	root, err := os.OpenRoot(from)
	if err != nil {
		return Result{}, fmt.Errorf("opening the run's folder: %w", err)
	}
	defer root.Close()
	var result Result
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile: the run may still be under way
		}
		if err != nil {
			return err
		}
		if name == "." {
			return nil
		}
		if skipped[name] {
			return fs.SkipDir
		}
		return take(root, name, entry, s, &result)
	})
	return result, err
}

func take(root *os.Root, name string, entry fs.DirEntry, s sink, result *Result) error {
	switch {
	case entry.IsDir():
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return s.folder(name, info)
	case !entry.Type().IsRegular():
		result.Left = append(result.Left, name)
		return nil
	}
	file, err := root.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // replaced between the listing and the opening
		result.Left = append(result.Left, name)
		return nil
	}
	// A file that still grows is taken as long as it was when it was opened.
	if err := s.file(name, info, io.LimitReader(file, info.Size())); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	result.Files++
	result.Bytes += info.Size()
	return nil
}

type copier struct{ root *os.Root }

func (c *copier) folder(name string, info fs.FileInfo) error {
	return c.root.Mkdir(name, info.Mode().Perm()|0o700)
}

func (c *copier) file(name string, info fs.FileInfo, content io.Reader) (err error) {
	out, err := c.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	return errors.Join(err, out.Close())
}

type packer struct {
	out    *tar.Writer
	prefix string
}

func (p *packer) folder(name string, info fs.FileInfo) error {
	return p.header(name+"/", info, tar.TypeDir, 0)
}

func (p *packer) file(name string, info fs.FileInfo, content io.Reader) error {
	if err := p.header(name, info, tar.TypeReg, info.Size()); err != nil {
		return err
	}
	n, err := io.Copy(p.out, content)
	if err == nil && n < info.Size() {
		return fmt.Errorf("it shrank while it was read")
	}
	return err
}

// header leaves out who owned the file: that means nothing on another machine.
func (p *packer) header(name string, info fs.FileInfo, kind byte, size int64) error {
	full := path.Join(p.prefix, name)
	if kind == tar.TypeDir {
		full += "/"
	}
	return p.out.WriteHeader(&tar.Header{
		Typeflag: kind, Name: full, Size: size, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(1e9),
		Format: tar.FormatPAX,
	})
}
