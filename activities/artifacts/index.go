package artifacts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/groundplan/groundplan/runs"
)

// settled is how old the last change of a file must be before its hash is remembered: a file can be changed twice
// within one tick of the file system's clock, and the second change would not show.
const settled = 2 * time.Second

// index remembers hashes of files by what stat says of them, so that a build of what has not changed reads nothing.
// It is a cache: it may be deleted or damaged, and two that write it at once only lose work.
type index struct {
	path  string
	Files map[string]*sum `json:"files"`
	// GoEnv and Replaced remember what the go command answered, by a hash of all that the answer depends on.
	GoEnv    map[string]map[string]string `json:"goEnv,omitempty"`
	Replaced map[string][]replacement     `json:"replaced,omitempty"`
	changed  bool
	seen     map[string]bool
}

// sum is what is remembered of one file.
type sum struct {
	Identity identity `json:"identity"`
	SHA256   string   `json:"sha256"`
	// Embeds says that a Go file holds an embed directive.
	Embeds bool `json:"embeds,omitempty"`
}

// identity is what stat says of a file; it changes whenever the content may have.
type identity struct {
	Size   int64  `json:"size"`
	Mode   uint32 `json:"mode"`
	MTime  int64  `json:"mtime"`
	CTime  int64  `json:"ctime"`
	Inode  uint64 `json:"inode"`
	Device uint64 `json:"device"`
}

// indexPath is where the index for what lies at path is kept.
func (s *Store) indexPath(path string) string {
	return filepath.Join(s.dir, ".index", hexSum([]byte(path))[:32]+".json")
}

// openIndex reads an index; a missing or damaged one is an empty one.
func openIndex(path string) *index {
	x := &index{}
	if runs.ReadJSON(path, x) != nil {
		x = &index{}
	}
	if x.Files == nil {
		x.Files = map[string]*sum{}
	}
	if x.GoEnv == nil {
		x.GoEnv = map[string]map[string]string{}
	}
	if x.Replaced == nil {
		x.Replaced = map[string][]replacement{}
	}
	x.path, x.seen = path, map[string]bool{}
	return x
}

// save writes the index when something in it changed, without the files that are gone.
func (x *index) save() error {
	for path := range x.Files {
		if x.seen[path] {
			continue
		}
		if found, err := exists(path); err == nil && !found {
			delete(x.Files, path)
			x.changed = true
		}
	}
	if !x.changed {
		return nil
	}
	data, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("keeping file hashes: %w", err)
	}
	if err := runs.WriteWhole(x.path, data); err != nil {
		return fmt.Errorf("keeping file hashes: %w", err)
	}
	x.changed = false
	return nil
}

// hash returns what is known of a regular file, and reads it only when it may have changed.
func (x *index) hash(path string) (sum, error) {
	info, err := os.Stat(path)
	if err != nil {
		return sum{}, err
	}
	x.seen[path] = true
	now := identify(info)
	if known := x.Files[path]; known != nil && known.Identity == now {
		return *known, nil
	}
	fresh := sum{Identity: now}
	if err := fresh.read(path); err != nil {
		return sum{}, err
	}
	after, err := os.Stat(path)
	if err != nil {
		return sum{}, err
	}
	if identify(after) != now {
		return sum{}, fmt.Errorf("%s changed while it was read", path)
	}
	delete(x.Files, path)
	if newest := max(now.MTime, now.CTime); time.Since(time.Unix(0, newest)) > settled {
		x.Files[path] = &fresh
	}
	x.changed = true
	return fresh, nil
}

// read fills in what only the content tells.
func (f *sum) read(path string) (err error) {
	if filepath.Ext(path) != ".go" {
		f.SHA256, err = sumFile(path)
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f.SHA256, f.Embeds = hexSum(data), bytes.Contains(data, []byte("//go:embed"))
	return nil
}

// identify reads what stat said.
func identify(info fs.FileInfo) identity {
	id := identity{Size: info.Size(), Mode: uint32(info.Mode()), MTime: info.ModTime().UnixNano()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Inode, id.Device = stat.Ino, uint64(stat.Dev) //nolint:unconvert // its type differs between systems
		id.CTime = changeTime(stat)
	}
	return id
}

// mostAnswers is how many answers of one kind an index keeps; one is needed per way of building.
const mostAnswers = 16

// remember adds an answer to those that are kept.
func remember[V any](answers map[string]V, key string, answer V) {
	if len(answers) >= mostAnswers {
		clear(answers)
	}
	answers[key] = answer
}

// exists says whether a file is there; an error means that it can't be told.
func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
