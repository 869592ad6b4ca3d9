// Package artifacts makes what groups run, once: an artifact lies in a folder named by the SHA-256 of all that goes into
// it, and whoever asks for the same again gets the folder that is there.
//
//	artifacts/
//	├── <digest>/program        the executable, or
//	├── <digest>/image.tar      the image
//	├── <digest>/artifact.json  what it was made from
//	├── .locks/<digest>         held while somebody makes it
//	├── .making-<digest>-*      a folder being filled; whoever holds the lock next removes it
//	└── .index/<hash>.json      hashes of source files, by path, size, times and inode
package artifacts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Store keeps artifacts below a folder. It may be used from many goroutines and many processes at once.
type Store struct {
	dir string
	// goTool is the go command; looked up in PATH when empty.
	goTool string
	// environ is the environment that the go command starts with.
	environ []string
}

// New returns the store in dir, which is made when it is needed; runs.Home.Artifacts says where a home keeps its own.
func New(dir string) *Store {
	return &Store{dir: dir, environ: os.Environ()}
}

// Order asks for one artifact.
type Order struct {
	// Name is the artifact's name in the pipeline; it doesn't go into the digest.
	Name   string
	Source pipelines.Source
	// Root is the absolute path of the repository root: paths in Source are relative to it.
	Root string
	// Images says that the ground runs images, on Linux nodes; it packs programs into some itself. Else instances are
	// plain processes of this machine.
	Images bool
	// Architecture is that of the ground's nodes, as Go names it; empty: this machine's.
	Architecture string
	// Log is where the whole output of a compiler goes; empty: nowhere. The file is replaced.
	Log string
	// Note, when set, is called with what is being done, from the goroutine that called Build.
	Note func(string)
}

// note says what is being done.
func (o Order) note(text string) {
	if o.Note != nil {
		o.Note(text)
	}
}

// Fault is why an artifact can't be made. Asking again changes nothing, unless Invalid is set.
type Fault struct {
	// Reason is what is wrong, for a person; it doesn't name the artifact.
	Reason string
	// Invalid says that not the source is at fault but what surrounds it: no go command, a proxy that is away, a
	// kind of artifact that can't be made here.
	Invalid bool
}

func (f *Fault) Error() string { return f.Reason }

func wrong(format string, args ...any) *Fault { return &Fault{Reason: fmt.Sprintf(format, args...)} }

func unfit(format string, args ...any) *Fault {
	return &Fault{Reason: fmt.Sprintf(format, args...), Invalid: true}
}

// Build returns the artifact, made now or found. What is known to be wrong with it is a *Fault; any other error means
// that it isn't known.
func (s *Store) Build(ctx context.Context, order Order) (stage.Artifact, error) {
	source := order.Source
	switch {
	case source.Go != nil:
		return s.buildGo(ctx, order, *source.Go)
	case source.Executable != nil:
		return s.takeExecutable(ctx, order, *source.Executable)
	case source.Image != nil && order.Images:
		return nameImage(order, *source.Image)
	case source.Image != nil:
		return stage.Artifact{}, elsewhere("image")
	case source.Dockerfile != nil && order.Images:
		return s.buildDockerfile(ctx, order, *source.Dockerfile)
	case source.Dockerfile != nil:
		return stage.Artifact{}, elsewhere("dockerfile")
	case source.NPM != nil && order.Images:
		return stage.Artifact{}, unfit("its source is npm, which isn't built yet: give it an image source, or a dockerfile one that runs `npm ci`")
	case source.NPM != nil:
		return stage.Artifact{}, elsewhere("npm")
	}
	return stage.Artifact{}, wrong("it names no source: give it one of go, executable")
}

func elsewhere(kind string) *Fault {
	return unfit("its source is %s, and instances on this machine are plain processes: use a go or executable source", kind)
}

// nameImage takes the reference of an image that exists. Whether it does, and what it holds by now, is seen where it is
// packed: its digest takes the place of this one then.
func nameImage(order Order, source pipelines.ImageSource) (stage.Artifact, error) {
	inputs, err := json.Marshal(map[string]any{"kind": "image", "reference": source.Ref})
	if err != nil {
		return stage.Artifact{}, fmt.Errorf("describing %s: %w", source.Ref, err)
	}
	return stage.Artifact{Name: order.Name, Digest: hexSum(inputs), Image: source.Ref}, nil
}

// recipe is what an artifact was made from, kept beside it.
type recipe struct {
	Digest string          `json:"digest"`
	Made   time.Time       `json:"made"`
	Inputs json.RawMessage `json:"inputs"`
}

func (s *Store) folder(digest string) string { return filepath.Join(s.dir, digest) }

func (s *Store) lockPath(digest string) string { return filepath.Join(s.dir, ".locks", digest) }

// What an artifact's folder holds beside its recipe: one of these files.
const (
	programName = "program"
	imageName   = "image.tar"
)

// find is where the artifact lies; empty when it isn't there. A folder gets its name when it is complete, so that its
// being there is enough.
func (s *Store) find(digest string) string {
	for _, name := range []string{programName, imageName} {
		path := filepath.Join(s.folder(digest), name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// obtain returns the artifact's file: the one that is there, or the one that fill puts into the folder it is given. At
// most one process makes an artifact at a time; others wait for it.
func (s *Store) obtain(ctx context.Context, order Order, digest string, inputs json.RawMessage, fill func(folder string) error) (path string, cached bool, err error) {
	if path = s.find(digest); path != "" && s.use(digest) {
		return path, true, nil
	}
	unlock, err := lock(ctx, s.lockPath(digest), func() {
		order.note("waiting for another build of " + order.Name)
	})
	if err != nil {
		return "", false, fmt.Errorf("locking artifact %s: %w", digest, err)
	}
	defer unlock()
	if path = s.find(digest); path != "" && s.use(digest) {
		return path, true, nil
	}
	if err := s.sweep(digest); err != nil {
		return "", false, err
	}
	making, err := os.MkdirTemp(s.dir, ".making-"+digest+"-*")
	if err != nil {
		return "", false, fmt.Errorf("making artifact %s: %w", digest, err)
	}
	defer os.RemoveAll(making)
	if err := fill(making); err != nil {
		return "", false, err
	}
	if err := s.settle(making, digest, inputs); err != nil {
		return "", false, fmt.Errorf("keeping artifact %s: %w", digest, err)
	}
	return s.find(digest), false, nil
}

// sweep removes what builders that were killed have left: of the artifact whose lock the caller holds, and of others that
// nobody is making.
func (s *Store) sweep(digest string) error {
	left, err := filepath.Glob(filepath.Join(s.dir, ".making-*"))
	for _, folder := range left {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(folder), ".making-"), "-")
		if owner != digest {
			unlock, busy := tryLock(s.lockPath(owner))
			if busy != nil {
				continue
			}
			defer unlock()
		}
		err = errors.Join(err, os.RemoveAll(folder))
	}
	// A folder with the final name but without a program can only be the work of somebody else's hands.
	return errors.Join(err, os.RemoveAll(s.folder(digest)))
}

// settle gives a filled folder its name. Its file reaches the disk first: a name must never stand for half a file.
func (s *Store) settle(making, digest string, inputs json.RawMessage) error {
	made := recipe{Digest: digest, Made: time.Now().UTC(), Inputs: inputs}
	if err := runs.WriteJSON(filepath.Join(making, "artifact.json"), made); err != nil {
		return err
	}
	if err := os.Chmod(making, 0o755); err != nil {
		return err
	}
	if err := flush(making); err != nil {
		return err
	}
	return os.Rename(making, s.folder(digest))
}

// flush sees to it that the artifact's file is on the disk.
func flush(making string) error {
	file, err := os.Open(filepath.Join(making, programName))
	if errors.Is(err, fs.ErrNotExist) {
		file, err = os.Open(filepath.Join(making, imageName))
	}
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// inside is the absolute path of something below root, with the reason when it is not there or leads out.
func inside(root, path string) (string, *Fault) {
	if path == "" {
		path = "."
	}
	if !filepath.IsLocal(path) {
		return "", wrong("%s lies outside the repository root", path)
	}
	real, err := filepath.EvalSymlinks(filepath.Join(root, path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", wrong("%s does not exist", path)
	}
	if err != nil {
		return "", wrong("%s can't be read: %v", path, err)
	}
	base, err := filepath.EvalSymlinks(root)
	if err != nil {
		return "", unfit("the repository root %s can't be read: %v", root, err)
	}
	if relative, err := filepath.Rel(base, real); err != nil || !filepath.IsLocal(relative) {
		return "", wrong("%s leads outside the repository root through a symbolic link", path)
	}
	return real, nil
}

// copyFile copies the content of a file into a new executable one.
func copyFile(from *os.File, to string) (err error) {
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, from)
	return err
}
