package node

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

const (
	// portion is how many entries of a folder are read at a time: there may be millions.
	portion = 1000
	// deepest is how many folders may be inside each other.
	deepest = 100
	// mostSkipped is how many entries a manifest names that were left out.
	mostSkipped = 1000
)

// archive streams what a run has on this node. What goes wrong once the stream has begun cuts it short: the caller finds
// no manifest at its end.
func (a *Agent) archive(w http.ResponseWriter, r *http.Request) {
	id, err := id(r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	folder := a.home.Run(id)
	ar, err := a.openArchive(folder, r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-tar")
	var out io.Writer = w
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		zipped, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is valid
		defer zipped.Close()
		out = zipped
	}
	ar.out = tar.NewWriter(out)
	if err := ar.write(folder); err != nil {
		if r.Context().Err() == nil {
			a.log.Error("an archive was cut short", "run", id, "error", err)
		}
		panic(http.ErrAbortHandler)
	}
}

// archive is one that is being written.
type archive struct {
	out       *tar.Writer
	manifest  Manifest
	pods      string // the kubelet's folder of pods
	instances []Instance
	records   bool
	buffer    []byte
}

// openArchive works out what is asked for.
func (a *Agent) openArchive(folder runs.Folder, r *http.Request) (*archive, error) {
	o, err := narrowed(r)
	if err != nil {
		return nil, err
	}
	if _, err := readAsked(folder); err != nil {
		return nil, control.Refuse(http.StatusNotFound, "run %s has never been on node %s, or was removed", filepath.Base(string(folder)), a.options.Name)
	}
	here, err := ReadInstances(folder)
	if err != nil {
		return nil, err
	}
	ar := &archive{
		manifest: Manifest{Node: a.options.Name}, pods: filepath.Join(a.options.Kubelet, "pods"),
		records: o.Only != OnlyOutputs && o.Group == "", buffer: make([]byte, 256<<10),
	}
	for _, i := range here {
		if o.Only != OnlyRecords && (o.Group == "" || o.Group == i.Group) && (o.Index == nil || *o.Index == i.Index) {
			ar.instances = append(ar.instances, i)
		}
	}
	return ar, nil
}

// narrowed reads what the archive is narrowed to.
func narrowed(r *http.Request) (ArchiveOptions, error) {
	query := r.URL.Query()
	o := ArchiveOptions{Only: query.Get("only"), Group: query.Get("group")}
	if o.Only != "" && o.Only != OnlyOutputs && o.Only != OnlyRecords {
		return o, control.Refuse(http.StatusBadRequest, "only=%s: %s or %s is needed", o.Only, OnlyOutputs, OnlyRecords)
	}
	if text := query.Get("index"); text != "" {
		index, err := strconv.Atoi(text)
		if err != nil || o.Group == "" {
			return o, control.Refuse(http.StatusBadRequest, "index=%s: the number of an instance is needed, and its group", text)
		}
		o.Index = &index
	}
	return o, nil
}

func (ar *archive) write(folder runs.Folder) error {
	for _, i := range ar.instances {
		if err := ar.instance(i); err != nil {
			return fmt.Errorf("the outputs of %s/%d: %w", i.Group, i.Index, err)
		}
	}
	if ar.records {
		if err := ar.runRecords(folder); err != nil {
			return fmt.Errorf("the run's records: %w", err)
		}
	}
	text, err := json.Marshal(ar.manifest)
	if err != nil {
		return err
	}
	header := &tar.Header{Name: ManifestName, Mode: 0o644, Size: int64(len(text)), ModTime: time.Now(), Format: tar.FormatPAX}
	if err := ar.out.WriteHeader(header); err != nil {
		return err
	}
	if _, err := ar.out.Write(text); err != nil {
		return err
	}
	return ar.out.Close()
}

// instance writes an instance's outputs. The pod's volume is what the kubelet has made; all below it is the plan's.
func (ar *archive) instance(i Instance) error {
	name := fmt.Sprintf("%s/%d", i.Group, i.Index)
	outputs, err := openOutputs(ar.pods, i.Pod.UID)
	if err != nil {
		if ar.manifest.Gone == nil {
			ar.manifest.Gone = make(map[string]string)
		}
		ar.manifest.Gone[name] = err.Error()
		return nil
	}
	ar.manifest.Instances = append(ar.manifest.Instances, name)
	return ar.folder(outputs, path.Join("outputs", name), 0)
}

// openOutputs opens the folder of outputs in a pod's volume.
func openOutputs(pods, uid string) (*os.Root, error) {
	if uid == "" || uid != filepath.Base(uid) || uid == "." || uid == ".." {
		return nil, fmt.Errorf("%q is no pod's UID", uid)
	}
	volume, err := os.OpenRoot(filepath.Join(pods, uid, "volumes", "kubernetes.io~empty-dir", "groundplan"))
	if err != nil {
		return nil, fmt.Errorf("its pod's folder is not there: %w", err)
	}
	defer volume.Close()
	outputs, err := volume.OpenRoot("outputs")
	if err != nil {
		return nil, fmt.Errorf("its pod has no folder of outputs: %w", err)
	}
	return outputs, nil
}

// folder writes what is in a folder, under a name in the archive, and closes it.
func (ar *archive) folder(dir *os.Root, name string, depth int) error {
	defer dir.Close()
	list, err := dir.Open(".")
	if err != nil {
		ar.skip(name, err.Error())
		return nil
	}
	defer list.Close()
	for {
		entries, err := list.ReadDir(portion)
		for _, entry := range entries {
			if err := ar.entry(dir, entry, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			ar.skip(name, err.Error())
			return nil
		}
	}
}

// entry writes one entry of a folder, or leaves it out.
func (ar *archive) entry(dir *os.Root, entry fs.DirEntry, parent string, depth int) error {
	name := path.Join(parent, entry.Name())
	switch kind := entry.Type(); {
	case kind.IsDir() && depth == deepest:
		ar.skip(name, fmt.Sprintf("it is more than %d folders deep", deepest))
		return nil
	case kind.IsDir():
		inside, err := dir.OpenRoot(entry.Name())
		if err != nil {
			ar.skip(name, err.Error())
			return nil
		}
		return ar.folder(inside, name, depth+1)
	case kind.IsRegular():
		return ar.file(dir, entry.Name(), name)
	default:
		ar.skip(name, kindOf(kind))
		return nil
	}
}

// kindOf says what an entry is that is no file.
func kindOf(kind fs.FileMode) string {
	switch {
	case kind&fs.ModeSymlink != 0:
		return "it is a symbolic link"
	case kind&fs.ModeSocket != 0:
		return "it is a socket"
	case kind&fs.ModeNamedPipe != 0:
		return "it is a pipe"
	case kind&fs.ModeDevice != 0:
		return "it is a device"
	}
	return "it is no regular file"
}

// file writes one file: as many bytes as it has now, whatever becomes of it meanwhile. By the time it is opened it may
// be something else.
func (ar *archive) file(dir *os.Root, base, name string) error {
	file, err := dir.OpenFile(base, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		ar.skip(name, err.Error())
		return nil
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		ar.skip(name, "it became something else while it was being opened")
		return nil
	}
	header := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime(), Format: tar.FormatPAX}
	if err := ar.out.WriteHeader(header); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{ar.out}, io.LimitReader(onlyReader{file}, info.Size()), ar.buffer)
	if missing := info.Size() - n; missing > 0 {
		// It has become shorter, or its disk fails. The header has promised its size, or the writer has gone.
		why := fmt.Sprintf("its last %d bytes are zeros: they were taken away while it was read", missing)
		if err != nil {
			why = fmt.Sprintf("its last %d bytes are zeros: %v", missing, err)
		}
		if _, err := io.CopyBuffer(onlyWriter{ar.out}, io.LimitReader(zeros{}, missing), ar.buffer); err != nil {
			return err
		}
		ar.skip(name, why)
	}
	ar.manifest.Files++
	ar.manifest.Bytes += info.Size()
	return nil
}

// onlyWriter and onlyReader hide the ways around the buffer.
type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }

// zeros is a file without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// runRecords writes what the sidecar has noted.
func (ar *archive) runRecords(folder runs.Folder) error {
	dir, err := os.OpenRoot(string(folder))
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range []string{filepath.Base(folder.Events()), filepath.Base(folder.SidecarLog())} {
		if _, err := dir.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := ar.file(dir, name, name); err != nil {
			return err
		}
	}
	stages := filepath.Base(filepath.Dir(folder.Stage("x")))
	inside, err := dir.OpenRoot(stages)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return ar.folder(inside, stages, 0)
}

// skip notes that something was left out.
func (ar *archive) skip(name, why string) {
	m := &ar.manifest
	if m.SkippedCount++; m.SkippedCount > mostSkipped {
		return
	}
	if m.Skipped == nil {
		m.Skipped = make(map[string]string)
	}
	m.Skipped[string(bytes.ToValidUTF8([]byte(name), []byte("\uFFFD")))] = why
}
