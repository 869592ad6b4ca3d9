package page

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How much of a file is answered at once, in bytes, and how many files of an instance are listed.
const (
	mostLog   = 64 << 10
	mostFiles = 200
)

// outputs opens the folder of an instance's outputs: nothing outside it can be named through what is answered.
func (p *Page) outputs(r *http.Request, id string) (*os.Root, error) {
	group, index, err := instanceOf(r)
	if err != nil {
		return nil, err
	}
	// The folder above is opened first: a plan may have put a link in the place of its own.
	root, err := os.OpenRoot(filepath.Join(string(p.home.Run(id)), "outputs"))
	if err != nil {
		return nil, fmt.Errorf("%s/%d has written nothing here: %w", group, index, bare(err))
	}
	defer root.Close()
	folder, err := root.OpenRoot(filepath.Join(group, strconv.Itoa(index)))
	if err != nil {
		return nil, fmt.Errorf("%s/%d has written nothing here: %w", group, index, bare(err))
	}
	return folder, nil
}

// bare is an error without the path that it is about: the page says names of its own.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// outputFile is one file of an instance's outputs.
type outputFile struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
}

// outputFiles answers with the files of an instance, those in folders among them.
func (p *Page) outputFiles(w http.ResponseWriter, r *http.Request, id string) {
	root, err := p.outputs(r, id)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	defer root.Close()
	files, cut := []outputFile{}, false
	_ = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil // what can't be read is not shown; links and pipes are none of ours
		}
		if len(files) == mostFiles {
			cut = true
			return fs.SkipAll
		}
		if info, err := e.Info(); err == nil {
			files = append(files, outputFile{name, info.Size(), info.ModTime()})
		}
		return nil
	})
	answer(w, map[string]any{"files": files, "more": cut})
}

// logPart is a part of a file: whole lines where it has lines.
type logPart struct {
	File string `json:"file"`
	Size int64  `json:"size"`
	// From and To are where the part begins and ends, in bytes.
	From int64  `json:"from"`
	To   int64  `json:"to"`
	Text string `json:"text"`
	// Binary says that it is no text.
	Binary bool `json:"binary,omitempty"`
}

// outputLog answers with a part of a file: its end, what is before an offset, or what came after one.
func (p *Page) outputLog(w http.ResponseWriter, r *http.Request, id string) {
	name := r.URL.Query().Get("file")
	before, after, err := offsets(r)
	if err != nil || !filepath.IsLocal(name) {
		fail(w, http.StatusBadRequest, "name a file of the outputs, and at most one place in it: before=N or after=N")
		return
	}
	root, err := p.outputs(r, id)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	defer root.Close()
	part, err := readPart(root, name, before, after)
	if err != nil {
		fail(w, http.StatusNotFound, fmt.Sprintf("%s can't be read: %v", name, bare(err)))
		return
	}
	answer(w, part)
}

// offsets are those of the request; -1 where there is none.
func offsets(r *http.Request) (before, after int64, err error) {
	before, after = -1, -1
	for name, into := range map[string]*int64{"before": &before, "after": &after} {
		text := r.URL.Query().Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, fmt.Errorf("%s=%s is no offset", name, text)
		}
		*into = n
	}
	if before >= 0 && after >= 0 {
		return 0, 0, errors.New("before and after exclude each other")
	}
	return before, after, nil
}

var errNoFile = errors.New("it is no regular file")

// readPart reads at most mostLog bytes.
func readPart(root *os.Root, name string, before, after int64) (logPart, error) {
	if info, err := root.Lstat(name); err != nil || !info.Mode().IsRegular() {
		return logPart{}, errors.Join(err, noFile(err))
	}
	// A pipe that has taken the file's place meanwhile must not hold the answer up.
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return logPart{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return logPart{}, errors.Join(err, noFile(err))
	}
	size := info.Size()
	from, to := max(size-mostLog, 0), size
	switch {
	case before >= 0:
		to = min(before, size)
		from = max(to-mostLog, 0)
	case after >= 0:
		from = min(after, size)
		to = min(from+mostLog, size)
	}
	data := make([]byte, to-from)
	n, err := file.ReadAt(data, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return logPart{}, err
	}
	return cutPart(logPart{File: name, Size: size, From: from, To: from + int64(n)}, data[:n], after >= 0), nil
}

func noFile(err error) error {
	if err != nil {
		return nil
	}
	return errNoFile
}

// cutPart leaves away what is a line only in part: at the beginning when the part was read backwards, at its end when it was read
// onwards. A line that is longer than a part is told in pieces.
func cutPart(p logPart, data []byte, onwards bool) logPart {
	if onwards {
		if end := bytes.LastIndexByte(data, '\n'); end >= 0 || p.To < p.Size && len(data) < mostLog {
			data = data[:end+1]
			p.To = p.From + int64(len(data))
		}
	} else if p.From > 0 {
		if begin := bytes.IndexByte(data, '\n'); begin >= 0 && begin+1 < len(data) {
			data = data[begin+1:]
			p.From += int64(begin + 1)
		}
	}
	p.Binary = slices.Contains(data, 0)
	p.Text = strings.ToValidUTF8(string(data), "\uFFFD")
	if p.Binary {
		p.Text = ""
	}
	return p
}
