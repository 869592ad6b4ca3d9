// Package runid makes, checks and completes the names of runs.
package runid

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/runs"
)

// maxName is how much of a pipeline's name goes into an id: with date, time, four random characters and the number of a
// matrix cell behind it, all of it fits into the 63 characters that an id may have.
const maxName = 36

// New is a name that sorts by pipeline and time (UTC) and won't meet another: dht-20060102-150405-k3fa.
func New(pipeline string, now time.Time) string {
	var random [3]byte
	_, _ = rand.Read(random[:]) // never fails, says its documentation
	tail := strings.ToLower(base32.StdEncoding.EncodeToString(random[:]))[:4]
	name := strings.TrimRight(pipeline[:min(len(pipeline), maxName)], "-")
	return fmt.Sprintf("%s-%s-%s", name, now.UTC().Format("20060102-150405"), tail)
}

// Check says what is wrong with an id that a person chose. Beyond what runs.CheckID asks, it must not look like a flag
// or a hidden file.
func Check(id string) error {
	if err := runs.CheckID(id); err != nil {
		return err
	}
	if strings.ContainsAny(id[:1], "._-") {
		return fmt.Errorf("%q can't name a run: begin it with a letter or a digit", id)
	}
	return nil
}

// UnknownError says that no run has the name asked for.
type UnknownError struct{ ID string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no run %q: `groundplan list` shows those there are", e.ID)
}

// AmbiguousError says that several runs begin with what was asked for.
type AmbiguousError struct {
	Prefix  string
	Matches []string
}

func (e *AmbiguousError) Error() string {
	const most = 5
	shown := strings.Join(e.Matches[:min(most, len(e.Matches))], ", ")
	if len(e.Matches) > most {
		shown += fmt.Sprintf(" and %d more", len(e.Matches)-most)
	}
	return fmt.Sprintf("%q is the beginning of %d runs: %s", e.Prefix, len(e.Matches), shown)
}

// Find returns the id among ids that is prefix, or else the only one that begins with it.
func Find(prefix string, ids []string) (string, error) {
	if slices.Contains(ids, prefix) {
		return prefix, nil
	}
	var matches []string
	for _, id := range ids {
		if prefix != "" && strings.HasPrefix(id, prefix) {
			matches = append(matches, id)
		}
	}
	slices.Sort(matches)
	matches = slices.Compact(matches)
	switch len(matches) {
	case 0:
		return "", &UnknownError{ID: prefix}
	case 1:
		return matches[0], nil
	}
	return "", &AmbiguousError{Prefix: prefix, Matches: matches}
}
