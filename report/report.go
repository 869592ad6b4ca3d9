// Package report writes what came of a run, or of a suite, as one HTML document: whole by itself, without network, and
// readable on a phone as on paper. It reads the run's folder and nothing else, whatever state that folder is in: files may
// be missing, cut or hostile.
//
// A document links to others by the paths that they have in a state folder: a run's cells and earlier runs are at
// ../<id>/report.html, a suite's runs at ../../runs/<id>/report.html. Whoever serves reports serves them there.
//
// It brings its own Content-Security-Policy, which lets nothing in but its own style and script. A server that sends
// another one beside it has to allow these ('unsafe-inline' in style-src and script-src): both policies hold.
package report

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/groundplan/groundplan/runs"
)

// Run writes the report of a run as far as there is anything of it; errors.Is(err, runs.ErrNoRecord) where it has no
// folder. The document of a run under way says so.
func Run(w io.Writer, home runs.Home, id string) error {
	return run(w, home, id, time.Now())
}

// run is Run at a given time.
func run(w io.Writer, home runs.Home, id string, now time.Time) error {
	if err := runs.CheckID(id); err != nil {
		return err
	}
	info, err := os.Stat(string(home.Run(id)))
	if err != nil || !info.IsDir() {
		return fmt.Errorf("reporting %s: %w: %w", id, runs.ErrNoRecord, notThere(err))
	}
	m, err := gather(home, id)
	if err != nil {
		return fmt.Errorf("reporting %s: %w", id, err)
	}
	defer m.files.Close()
	return render(w, "run", runPage(m, now))
}

// notThere is why a folder can't be read.
func notThere(err error) error {
	if err == nil {
		return fs.ErrInvalid // something that is no folder is in its place
	}
	return err
}
