package kubernetes

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	nodeagent "github.com/groundplan/groundplan/sidecar/node"
)

const (
	// archivesAtOnce is how many nodes' archives are read at a time.
	archivesAtOnce = 8
	// longestRecord bounds a record of a node (a stage's results, its events), in bytes.
	longestRecord = 1 << 30
)

// errCut is an archive that ended before its last entry.
var errCut = errors.New("the archive was cut short")

// Gather brings the outputs of all instances, and what became of each, from the nodes into the run's folder. What was
// brought before is brought again and takes its own place.
func (g *Ground) Gather(ctx context.Context, in stage.Input, report func(stage.Progress)) error {
	s, err := g.open(in.Run, in)
	var none *clusterFault
	if errors.As(err, &none) {
		return nil // nothing was placed, so there is nothing to gather
	}
	if err != nil {
		return err
	}
	defer s.close()
	if len(s.state.Nodes) == 0 {
		return nil
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	total := sidecars.Instances(in, sidecars.Names(in))
	var found atomic.Int64
	bringing := func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.bring(ctx, nodeagent.ArchiveOptions{}, func(n int) { found.Add(int64(n)) })
	}
	tell := func() {
		report(stage.Progress{Total: total, Succeeded: int(found.Load()), Note: "gathering outputs"})
	}
	tell()
	if _, err := sidecars.While(ctx, bringing, tell); err != nil {
		return err
	}
	tell()
	return s.brought(ctx)
}

// brought notes that all outputs are here.
func (s *session) brought(ctx context.Context) error {
	unlock, err := sidecars.Lock(ctx, s.folder)
	if err != nil {
		return err
	}
	defer unlock()
	newest, err := readState(s.folder)
	if err != nil || !newest.Written {
		return err
	}
	newest.Written = false
	return newest.write(s.folder)
}

// recordsWithin is how long bringing home the records of a stage may take.
const recordsWithin = 20 * time.Second

// bringRecords brings home what became of the instances, for whoever asks before anything is gathered. What doesn't come
// now comes then.
func (s *session) bringRecords(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, recordsWithin)
	defer cancel()
	if err := s.bring(ctx, nodeagent.ArchiveOptions{Only: nodeagent.OnlyRecords}, func(int) {}); err != nil {
		s.ground.options.Log.Warn("what became of the instances was not brought home yet", "run", s.in.Run.ID, "error", err)
	}
}

// bring reads the archives of all nodes into the run's folder. A node that is gone has nothing to bring; the run's events
// say so.
func (s *session) bring(ctx context.Context, o nodeagent.ArchiveOptions, found func(instances int)) error {
	if err := os.MkdirAll(string(s.folder), 0o755); err != nil {
		return fmt.Errorf("making the run's folder: %w", err)
	}
	root, err := os.OpenRoot(string(s.folder))
	if err != nil {
		return fmt.Errorf("opening the run's folder: %w", err)
	}
	defer root.Close()
	records := &records{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(archivesAtOnce)
	for _, n := range s.noted() {
		group.Go(func() error {
			err := s.patient(ctx, n, s.ground.limits.answers, func(ctx context.Context) error {
				return s.read(ctx, n, o, root, records, found)
			})
			var away *awayFault
			if errors.As(err, &away) && away.gone {
				s.note("outputs-lost", fmt.Sprintf("%s: what instances wrote there can't be gathered", away.Error()))
				return nil
			}
			if err != nil {
				return fmt.Errorf("gathering from node %s: %w", n.name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return records.merge(root, s.folder)
}

// read takes one node's archive in. An archive that is cut short is asked for again, as if the node had been away.
func (s *session) read(ctx context.Context, n *node, o nodeagent.ArchiveOptions, root *os.Root, all *records, found func(int)) error {
	stream, err := n.agent.Archive(ctx, s.in.Run.ID, o)
	if unknownStage(err) {
		return nil // nothing of the run is there
	}
	if err != nil {
		return err
	}
	defer stream.Close()
	u := &unpacking{node: n.name, root: root, folder: s.folder, own: map[string]*record{}}
	err = u.unpack(stream)
	if errors.Is(err, errCut) {
		return fmt.Errorf("%w: %w", control.ErrAway, err)
	}
	if err != nil {
		return err
	}
	all.add(n.name == s.state.Lead, u.own)
	if o.Only != nodeagent.OnlyRecords {
		found(len(u.manifest.Instances))
	}
	for name, why := range u.manifest.Gone {
		s.note("outputs-lost", fmt.Sprintf("what %s wrote on node %s can't be gathered: %s", name, n.name, why))
	}
	if count := max(u.manifest.SkippedCount, len(u.manifest.Skipped)); count > 0 {
		s.note("outputs-skipped", fmt.Sprintf("%d files on node %s were not gathered%s", count, n.name, example(u.manifest.Skipped)))
	}
	return nil
}

func example(skipped map[string]string) string {
	for name, why := range skipped {
		return fmt.Sprintf(", such as %s: %s", name, why)
	}
	return ""
}

// unpacking is one node's archive on its way into the run's folder. What the archive holds was written by instances and
// comes from another machine: everything goes through the folder's Root, and only to where it belongs.
type unpacking struct {
	node     string
	root     *os.Root
	folder   runs.Folder
	own      map[string]*record // by path
	manifest nodeagent.Manifest
}

func (u *unpacking) unpack(stream io.Reader) error {
	entries := tar.NewReader(stream)
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return errCut
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errCut, err)
		}
		if entry.Typeflag != tar.TypeReg || !filepath.IsLocal(entry.Name) {
			continue
		}
		name := path.Clean(entry.Name)
		switch kind, _, _ := strings.Cut(name, "/"); {
		case name == nodeagent.ManifestName:
			if err := json.NewDecoder(entries).Decode(&u.manifest); err != nil {
				return fmt.Errorf("%w: its manifest: %w", errCut, err)
			}
			return nil
		case kind == "outputs" && strings.Count(name, "/") > 2:
			err = u.file(name, entry, entries)
		case name == "sidecar.log":
			err = u.file(u.relative(u.folder.NodeLog(u.node)), entry, entries)
		case kind == "stages" || name == "events.jsonl":
			err = u.record(name, entry, entries)
		}
		if err != nil {
			return err
		}
	}
}

// relative is a path inside the run's folder.
func (u *unpacking) relative(name string) string {
	inside, err := filepath.Rel(string(u.folder), name)
	if err != nil {
		return filepath.Base(name)
	}
	return inside
}

// file writes one file.
func (u *unpacking) file(name string, entry *tar.Header, from io.Reader) error {
	if err := u.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("making the folder of %s: %w", name, err)
	}
	file, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	written, err := io.Copy(file, from)
	if closing := file.Close(); err == nil && closing != nil {
		return fmt.Errorf("writing %s: %w", name, closing)
	}
	if err != nil && written < entry.Size {
		return cutOr(name, err)
	}
	if !entry.ModTime.IsZero() {
		_ = u.root.Chtimes(name, entry.ModTime, entry.ModTime) // a nicety
	}
	return nil
}

// cutOr tells the two ends of a copy apart: what the file system says is final, what the stream says isn't.
func cutOr(name string, err error) error {
	var local *fs.PathError
	if errors.As(err, &local) {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return fmt.Errorf("%w: %w", errCut, err)
}

// record keeps one of the node's own records, to be merged with those of other nodes.
func (u *unpacking) record(name string, entry *tar.Header, from io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(from, min(entry.Size, longestRecord)))
	if err != nil {
		return fmt.Errorf("%w: %w", errCut, err)
	}
	u.own[name] = &record{data}
	return nil
}

// record is a file of one node's sidecar.
type record struct{ data []byte }

// records are those of all nodes.
type records struct {
	mu    sync.Mutex
	rest  []map[string]*record
	leads map[string]*record
}

func (r *records) add(lead bool, own map[string]*record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = append(r.rest, own)
	if lead {
		r.leads = own
	}
}

// merge brings the records into the run's folder.
func (r *records) merge(root *os.Root, folder runs.Folder) error {
	byName := map[string][][]byte{}
	for _, own := range r.rest {
		for name, record := range own {
			byName[name] = append(byName[name], record.data)
		}
	}
	for name, parts := range byName {
		var err error
		switch {
		case name == "events.jsonl":
			err = mergeEvents(folder, parts)
		case strings.HasSuffix(name, ".network.json"):
			if lead := r.leads[name]; lead != nil {
				parts = [][]byte{lead.data}
			}
			err = replace(root, name, slices.MaxFunc(parts, func(a, b []byte) int { return len(a) - len(b) }))
		case strings.HasSuffix(name, ".jsonl"):
			err = mergeRows(root, name, parts)
		}
		if err != nil {
			return fmt.Errorf("bringing %s together: %w", name, err)
		}
	}
	return nil
}

// mergeRows brings what became of the instances of a stage together: a row for each instance and attempt, whoever asks
// how often.
func mergeRows(root *os.Root, name string, parts [][]byte) error {
	type sameness struct {
		group   string
		index   int
		attempt string
	}
	rows := map[sameness]control.Instance{}
	have, err := root.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, data := range append([][]byte{have}, parts...) {
		for line := range strings.Lines(string(data)) {
			var row control.Instance
			if json.Unmarshal([]byte(line), &row) == nil { // a line that a crash has cut is left out
				rows[sameness{row.Group, row.Index, row.Attempt}] = row
			}
		}
	}
	sorted := make([]control.Instance, 0, len(rows))
	for _, row := range rows {
		sorted = append(sorted, row)
	}
	slices.SortFunc(sorted, func(a, b control.Instance) int {
		if byEnd := a.Ended.Compare(b.Ended); byEnd != 0 {
			return byEnd
		}
		return sidecars.ByInstance(instance(a.Group, a.Index), instance(b.Group, b.Index))
	})
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	for _, row := range sorted {
		if err := encoder.Encode(row); err != nil {
			return err
		}
	}
	return replace(root, name, []byte(text.String()))
}

// replace writes a file: complete or not at all.
func replace(root *os.Root, name string, data []byte) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	fresh := name + ".new"
	if err := root.WriteFile(fresh, data, 0o644); err != nil {
		return err
	}
	return root.Rename(fresh, name)
}

// mergeEvents adds to the run's events those of its nodes that it doesn't have, in the order of their times. Nothing is
// rewritten: others add to them at the same time.
func mergeEvents(folder runs.Folder, parts [][]byte) error {
	have, err := os.ReadFile(folder.Events())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(have)) {
		known[strings.TrimSpace(line)] = true
	}
	var fresh []runs.Event
	for _, data := range parts {
		for line := range strings.Lines(string(data)) {
			var e runs.Event
			if text := strings.TrimSpace(line); !known[text] && json.Unmarshal([]byte(text), &e) == nil {
				known[text] = true
				fresh = append(fresh, e)
			}
		}
	}
	slices.SortStableFunc(fresh, func(a, b runs.Event) int { return a.Time.Compare(b.Time) })
	for _, e := range fresh {
		if err := folder.AppendEvent(e); err != nil {
			return err
		}
	}
	return nil
}
