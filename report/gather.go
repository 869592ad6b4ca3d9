package report

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// mostEvents bounds how many lines of the event log are kept.
const mostEvents = 20_000

// material is what a run's folder holds, as far as it can be read.
type material struct {
	id     string
	record runs.Record
	// recorded is false where there is no run.json: the run is just being started, or what started it was killed then.
	recorded   bool
	pipeline   pipelines.Resolved
	events     []runs.Event
	attempts   []attempt
	census     *census
	proofs     []proof
	metrics    map[string]pipelines.Summary
	samples    map[string][]pipelines.Summary
	comparison *comparison.Outcome
	// earlier are the runs before this one of the same kind, the newest first; for one that did not pass.
	earlier []runs.Record
	// faults are sentences about what could not be read.
	faults []string
	files  *tree
}

// proof is what a network stage's links were found to do.
type proof struct {
	stage string
	control.Proof
}

// gather reads a run's folder.
func gather(home runs.Home, id string) (*material, error) {
	files, err := openTree(string(home.Run(id)))
	if err != nil {
		return nil, err
	}
	m := &material{id: id, files: files}
	m.recorded = m.json("run.json", &m.record)
	m.record.ID = id
	m.json("pipeline.json", &m.pipeline)
	m.fill()
	m.readEvents()
	m.attempts = m.tries()
	m.census = m.count()
	m.readProofs()
	m.metrics = m.record.Metrics
	if m.metrics == nil {
		m.json("metrics.json", &m.metrics)
	}
	m.json("samples.json", &m.samples)
	outcome := &comparison.Outcome{}
	if m.json("comparison.json", outcome) {
		m.comparison = outcome
	}
	if m.record.Verdict != stage.Passed {
		m.earlier = before(home, m.record)
	}
	return m, nil
}

func (m *material) json(path string, into any) bool {
	found, err := m.files.json(path, into)
	m.fault(err)
	return found
}

func (m *material) fault(err error) {
	if err != nil {
		m.faults = append(m.faults, clean(err.Error(), shownRunes))
	}
}

// badLines notes lines that are none of what they should be.
func (m *material) badLines(file string, bad int) {
	if bad > 0 {
		m.faults = append(m.faults, fmt.Sprintf("%s in %s could not be read", plural(bad, "line"), file))
	}
}

// fill takes from the pipeline what a record would say that isn't there.
func (m *material) fill() {
	r, p := &m.record, m.pipeline
	r.Pipeline = cmp.Or(r.Pipeline, p.Name)
	r.Description = cmp.Or(r.Description, p.Description)
	r.File = cmp.Or(r.File, p.File)
	r.Digest = cmp.Or(r.Digest, p.Digest)
	r.Seed = cmp.Or(r.Seed, p.Seed)
	if r.Parameters == nil {
		r.Parameters = p.Parameters
	}
}

func (m *material) readEvents() {
	bad, err := lines(m.files, "events.jsonl", func(e runs.Event) {
		if len(m.events) < mostEvents {
			m.events = append(m.events, e)
		}
	})
	m.badLines("events.jsonl", bad)
	m.fault(err)
	slices.SortStableFunc(m.events, func(a, b runs.Event) int { return a.Time.Compare(b.Time) })
	if m.record.Started.IsZero() && len(m.events) > 0 {
		m.record.Started = m.events[0].Time
	}
}

// stageFiles are the names before an ending in the folder of stages, in the order of the pipeline.
func (m *material) stageFiles(ending string) []string {
	entries, err := fs.ReadDir(m.files.root.FS(), "stages")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.fault(fmt.Errorf("stages can't be read: %w", err))
	}
	var names []string
	for _, entry := range entries {
		if name, found := strings.CutSuffix(entry.Name(), ending); found && name != "" {
			names = append(names, name)
		}
	}
	order := func(name string) int {
		i := slices.IndexFunc(m.pipeline.Stages, func(s pipelines.Stage) bool { return s.Name == name })
		if i < 0 {
			return len(m.pipeline.Stages)
		}
		return i
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a, b)) })
	return names
}

func (m *material) readProofs() {
	for _, name := range m.stageFiles(".network.json") {
		p := proof{stage: name}
		if m.json(path.Join("stages", name+".network.json"), &p.Proof) {
			m.proofs = append(m.proofs, p)
		}
	}
}

// before are the runs of the same pipeline on the same ground that started before one, the newest first.
func before(home runs.Home, r runs.Record) []runs.Record {
	records, _ := home.List() // those that can't be read are not missed here
	return slices.DeleteFunc(records, func(o runs.Record) bool {
		return o.ID == r.ID || o.Pipeline != r.Pipeline || o.Ground != r.Ground || !o.Started.Before(r.Started) ||
			o.Status != stage.StatusEnded || fmt.Sprint(o.Cell) != fmt.Sprint(r.Cell)
	})
}
