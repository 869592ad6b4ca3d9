package main

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
)

// archive is the initial file system of a machine: paths without a leading slash, and what the files hold. All of them
// can be executed; folders follow from the paths.
type archive map[string][]byte

// write writes it in the kernel's format, cpio's "newc".
func (a archive) write(out io.Writer) error {
	for name := range a {
		if !fs.ValidPath(name) {
			return fmt.Errorf("%q can't be the path of a file in an initramfs", name)
		}
	}
	w := &cpioWriter{out: out}
	for _, folder := range a.folders() {
		w.entry(folder, uint32(0o40000|0o755), nil)
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		w.entry(name, uint32(0o100000|0o755), a[name])
	}
	w.entry("TRAILER!!!", 0, nil)
	return w.err
}

// folders are those of the files and those that a kernel's init needs to mount on, parents first.
func (a archive) folders() []string {
	found := map[string]bool{"dev": true, "proc": true, "sys": true, "tmp": true}
	for name := range a {
		for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
			found[folder] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// cpioWriter writes entries until one fails.
type cpioWriter struct {
	out   io.Writer
	inode int
	err   error
}

func (w *cpioWriter) entry(name string, mode uint32, content []byte) {
	w.inode++
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		w.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	w.write(padded([]byte(header + name + "\x00")))
	w.write(padded(content))
}

func (w *cpioWriter) write(p []byte) {
	if w.err == nil {
		_, w.err = w.out.Write(p)
	}
}

// padded fills up to a multiple of four bytes.
func padded(p []byte) []byte { return append(p[:len(p):len(p)], make([]byte, -len(p)&3)...) }
