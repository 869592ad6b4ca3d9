package artifacts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// discarded begins the name of an artifact's folder that is being removed.
const discarded = ".gone-"

var digestName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Stored is an artifact that the store has.
type Stored struct {
	Digest string
	// Folder is where it lies.
	Folder string
	// Used is when it was made, or last asked for.
	Used time.Time
}

// List is all that the store has.
func (s *Store) List() ([]Stored, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the artifacts: %w", err)
	}
	var list []Stored
	for _, entry := range entries {
		if !entry.IsDir() || !digestName.MatchString(entry.Name()) {
			continue
		}
		if info, err := entry.Info(); err == nil {
			list = append(list, Stored{Digest: entry.Name(), Folder: s.folder(entry.Name()), Used: info.ModTime()})
		}
	}
	return list, nil
}

// Discard removes an artifact, unless it was asked for since the moment that it was decided about. Whoever asks for it from
// now on has it made again.
func (s *Store) Discard(digest string, decided time.Time) (gone bool, err error) {
	if !digestName.MatchString(digest) {
		return false, fmt.Errorf("%q is no artifact's digest", digest)
	}
	unlock, err := tryLock(s.lockPath(digest))
	if errors.Is(err, errBusy) {
		return false, nil // somebody makes it just now
	}
	if err != nil {
		return false, fmt.Errorf("locking artifact %s: %w", digest, err)
	}
	defer unlock()
	usedSince := func(folder string) bool {
		info, err := os.Lstat(folder)
		return err == nil && info.ModTime().After(decided)
	}
	from := s.folder(digest)
	if usedSince(from) {
		return false, nil
	}
	aside := filepath.Join(s.dir, discarded+digest)
	if err := os.RemoveAll(aside); err != nil {
		return false, fmt.Errorf("removing artifact %s: %w", digest, err)
	}
	err = os.Rename(from, aside)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err == nil && usedSince(aside) { // between the two
		return false, os.Rename(aside, from)
	}
	if err := errors.Join(err, os.RemoveAll(aside)); err != nil {
		return false, fmt.Errorf("removing artifact %s: %w", digest, err)
	}
	return true, nil
}

// Sweep removes what builders and removers that were killed have left.
func (s *Store) Sweep() error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var faults []error
	for _, entry := range entries {
		rest, making := strings.CutPrefix(entry.Name(), ".making-")
		if gone, ok := strings.CutPrefix(entry.Name(), discarded); ok {
			rest, making = gone, true
		}
		if !making {
			continue
		}
		digest, _, _ := strings.Cut(rest, "-")
		unlock, busy := tryLock(s.lockPath(digest))
		if busy != nil {
			continue
		}
		faults = append(faults, os.RemoveAll(filepath.Join(s.dir, entry.Name())))
		unlock()
	}
	return errors.Join(append(faults, err)...)
}

// use notes that an artifact was asked for; false when it is gone meanwhile.
func (s *Store) use(digest string) bool {
	now := time.Now()
	err := os.Chtimes(s.folder(digest), now, now)
	return !errors.Is(err, fs.ErrNotExist) // a folder of somebody else's stays as it is
}
