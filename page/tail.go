package page

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
)

// How much of a file of lines is read at a look, and how long a line may be, in bytes. A longer one is left out.
const (
	mostPerLook = 8 << 20
	mostLine    = 1 << 20
	chunk       = 256 << 10
)

// tail reads the lines of a file that grows.
type tail struct {
	offset int64
	whole  os.FileInfo // as it was at the last look
}

// read hands every line that is new and complete to each, with where it stands in the file. anew says that the file is
// another one than before, or was cut: then everything that was read before is void, and read has begun at its start.
// more says that there is more than is read at a look.
func (t *tail) read(path string, each func(offset int64, line []byte)) (anew, more bool, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		anew = t.offset > 0
		*t = tail{}
		return anew, false, nil
	}
	if err != nil {
		return false, false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return false, false, err
	}
	if t.whole != nil && (!os.SameFile(t.whole, info) || info.Size() < t.offset) {
		anew, t.offset = t.offset > 0, 0
	}
	t.whole = info
	if info.Size() == t.offset || !info.Mode().IsRegular() {
		return anew, false, nil
	}
	more, err = t.lines(io.NewSectionReader(file, t.offset, min(info.Size()-t.offset, mostPerLook)), each)
	return anew, more || info.Size()-t.offset > mostLine, err
}

// lines reads what a section holds, up to its last line that is complete.
func (t *tail) lines(section io.Reader, each func(int64, []byte)) (more bool, err error) {
	data := make([]byte, 0, chunk)
	for {
		if len(data) == cap(data) {
			data = append(data, make([]byte, chunk)...)[:len(data)]
		}
		n, err := section.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		done := 0
		for {
			end := bytes.IndexByte(data[done:], '\n')
			if end < 0 {
				break
			}
			each(t.offset+int64(done), data[done:done+end])
			done += end + 1
		}
		t.offset += int64(done)
		data = append(data[:0], data[done:]...)
		if len(data) > mostLine { // what is left of it is read as a line of its own, which is none of ours
			t.offset += int64(len(data))
			data = data[:0]
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}
