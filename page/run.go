package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

func runFeed(id string) string { return "run " + id }

func (p *Page) runStream(w http.ResponseWriter, r *http.Request, id string) {
	p.stream(w, r, runFeed(id), func() subject { return newRun(p.home, p.services, id) })
}

// How often a run is looked at: under way, and when it has ended.
const (
	paceUnderWay = 500 * time.Millisecond
	paceEnded    = 2 * time.Second
)

// asked bounds one question to the services: while they are taken over they don't answer.
const asked = 3 * time.Second

// head is what there is to know of a run besides what has many rows.
type head struct {
	ID          string         `json:"id"`
	Pipeline    string         `json:"pipeline,omitempty"`
	Description string         `json:"description,omitempty"`
	File        string         `json:"file,omitempty"`
	Ground      string         `json:"ground,omitempty"`
	Commit      string         `json:"commit,omitempty"`
	Seed        string         `json:"seed,omitempty"` // it doesn't fit into a number of JavaScript
	Suite       string         `json:"suite,omitempty"`
	Turn        string         `json:"turn,omitempty"`
	From        string         `json:"from,omitempty"`
	Parameters  map[string]any `json:"parameters,omitempty"`
	Cell        map[string]any `json:"cell,omitempty"`
	Versions    any            `json:"versions,omitempty"`
	// Status is one of stage.StatusRunning, StatusHolding, StatusEnded, or one of those below.
	Status  string        `json:"status"`
	Verdict stage.Verdict `json:"verdict,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Started time.Time     `json:"started,omitzero"`
	Ended   time.Time     `json:"ended,omitzero"`
	// Holding is what a run that holds waits for.
	Holding  *workflows.Holding `json:"holding,omitempty"`
	Progress []stage.Progress   `json:"progress,omitempty"`
	Groups   []group            `json:"groups,omitempty"`
	// Figures are what is known of each group's instances together.
	Figures    map[string]runs.Group `json:"figures,omitempty"`
	Assertions []stage.Assertion     `json:"assertions,omitempty"`
	// Matrix says that its stages are the runs of its cells.
	Matrix bool `json:"matrix,omitempty"`
	// Asking is why what is told may be old: the services don't answer.
	Asking string `json:"asking,omitempty"`
}

// What a run can be besides what its record calls it.
const (
	statusInterrupted = "interrupted" // nobody carries it
	statusGone        = "gone"        // it has no folder, and nobody knows it
)

type group struct {
	Name      string `json:"name"`
	Instances int    `json:"instances"`
}

// row is one stage, or one cell of a matrix.
type row struct {
	workflows.StageState
	// Note is what is to be said of it besides its reason.
	Note string `json:"note,omitempty"`
	// Run is the id of a cell's run, and Values its parameters.
	Run    string         `json:"run,omitempty"`
	Values map[string]any `json:"values,omitempty"`
}

// run is what a feed about a run looks at: its folder, and the services while it is under way.
type run struct {
	id       string
	folder   runs.Folder
	services Services

	record   runs.Record
	recorded os.FileInfo
	pipeline *pipelines.Resolved
	state    *workflows.State // as the services told it last
	head     head
	told     []byte // the head as it was told
	rows     []row
	rowsTold [][]byte
	outcomes *outcomes
	events   *eventLog
	measured document
	metrics  *metricsMessage
	proofs   map[string]*proof
	underWay bool
	catchUp  bool // there was more than is read at one look
}

func newRun(home runs.Home, services Services, id string) *run {
	return &run{
		id: id, folder: home.Run(id), services: services,
		outcomes: newOutcomes(), events: &eventLog{}, proofs: map[string]*proof{},
	}
}

func (r *run) pace() time.Duration {
	switch {
	case r.catchUp:
		return 10 * time.Millisecond
	case r.underWay:
		return paceUnderWay
	}
	return paceEnded
}

// seen is what one look saw, before it is taken over.
type seen struct {
	missing  bool // no folder
	record   *runs.Record
	info     os.FileInfo
	pipeline *pipelines.Resolved
	state    *workflows.State
	progress []stage.Progress
	unknown  bool // to the services
	fault    error
	metrics  *metricsMessage
	proofs   map[string]*proof
}

func (r *run) look(ctx context.Context) func(teller) {
	var s seen
	_, err := os.Stat(string(r.folder))
	s.missing = errors.Is(err, fs.ErrNotExist)
	r.readRecord(&s)
	if r.pipeline == nil && !s.missing {
		if p, err := r.folder.ReadPipeline(); err == nil {
			s.pipeline = &p
		}
	}
	record := r.record
	if s.record != nil {
		record = *s.record
	}
	if record.Status != stage.StatusEnded {
		r.ask(ctx, &s)
	}
	if data := r.measured.look(r.folder.Metrics()); data != nil {
		s.metrics = readMetrics(data)
	}
	s.proofs = r.lookAtProofs()
	// The files that grow are read with the lock: what they hold goes straight to where it is told from.
	return func(tell teller) { r.take(s, tell) }
}

// readRecord reads the record where it is another one than before. One that is half-written or gone leaves what is known.
func (r *run) readRecord(s *seen) {
	info, err := os.Stat(r.folder.Record())
	if err != nil {
		return
	}
	if r.recorded != nil && os.SameFile(r.recorded, info) && r.recorded.ModTime().Equal(info.ModTime()) && r.recorded.Size() == info.Size() {
		return
	}
	record, err := r.folder.ReadRecord()
	if err != nil {
		return
	}
	s.record, s.info = &record, info
}

// ask asks the services where the run stands.
func (r *run) ask(ctx context.Context, s *seen) {
	ctx, cancel := context.WithTimeout(ctx, asked)
	defer cancel()
	state, err := r.services.State(ctx, r.id)
	switch {
	case errors.Is(err, ErrUnknown):
		s.unknown = true
		return
	case err != nil:
		s.fault = err
		return
	}
	s.state = &state
	if state.Status != stage.StatusEnded {
		s.progress, _ = r.services.Progress(ctx, r.id) // between two stages there is none
	}
}

// take takes over what was seen, and tells what has changed.
func (r *run) take(s seen, tell teller) {
	if s.record != nil {
		r.record, r.recorded = *s.record, s.info
	}
	if s.pipeline != nil {
		r.pipeline = s.pipeline
		r.outcomes.place(groupsOf(s.pipeline), s.pipeline.Stages)
	}
	if s.state != nil {
		r.state = s.state
	}
	if r.record.Status == stage.StatusEnded {
		r.state = nil // the record is the last word
	}
	r.head = r.headOf(s)
	r.underWay = r.head.Status != stage.StatusEnded && r.head.Status != statusGone && r.head.Status != statusInterrupted
	if data, err := json.Marshal(r.head); err != nil || !bytes.Equal(data, r.told) {
		r.told = data
		tell("head", r.head)
	}
	r.tellRows(tell)
	r.catchUp = r.outcomes.read(r.folder, tell)
	r.catchUp = r.events.read(r.folder.Events(), tell) || r.catchUp
	if s.metrics != nil {
		r.metrics = s.metrics
		tell("metrics", s.metrics)
	}
	for name, p := range s.proofs {
		r.proofs[name] = p
		tell("network", p)
	}
}

// whole tells everything.
func (r *run) whole(tell teller) {
	tell("head", r.head)
	all := make([]indexed, 0, len(r.rows))
	for i, row := range r.rows {
		all = append(all, indexed{i, row})
	}
	tell("stages", rowsMessage{Total: len(r.rows), Rows: all})
	r.outcomes.whole(tell)
	r.events.whole(tell)
	if r.metrics != nil {
		tell("metrics", r.metrics)
	}
	for _, p := range r.proofs {
		tell("network", p)
	}
}

func (r *run) headOf(s seen) head {
	rec := r.record
	h := head{
		ID: r.id, Pipeline: rec.Pipeline, Description: rec.Description, File: rec.File, Ground: rec.Ground, Commit: rec.Commit,
		Suite: rec.Suite, Turn: rec.Turn, From: rec.From, Parameters: rec.Parameters, Cell: rec.Cell, Versions: rec.Versions,
		Status: rec.Status, Verdict: rec.Verdict, Reason: rec.Reason, Started: rec.Started, Ended: rec.Ended,
		Figures: rec.Groups, Assertions: rec.Assertions, Progress: s.progress, Matrix: len(rec.Cells) > 0,
	}
	if rec.ID != "" {
		h.Seed = strconv.FormatUint(rec.Seed, 10)
	}
	if r.pipeline != nil {
		h.Groups = groupsOf(r.pipeline)
		if h.Pipeline == "" {
			h.Pipeline, h.Description, h.File = r.pipeline.Name, r.pipeline.Description, r.pipeline.File
		}
	}
	if state := r.state; state != nil {
		h.Status, h.Holding = state.Status, state.Holding
		h.Verdict, h.Reason = "", ""
		if state.Output != nil {
			h.Verdict, h.Reason = state.Output.Verdict, state.Output.Reason
		} else if state.Holding != nil {
			h.Reason = state.Holding.Reason
		}
		h.Matrix = h.Matrix || isMatrix(state.Stages)
	}
	switch {
	case s.missing && (s.unknown || rec.Status == stage.StatusEnded):
		h.Status = statusGone
	case s.unknown:
		h.Status, h.Verdict = statusInterrupted, ""
	case s.fault != nil:
		h.Asking = s.fault.Error()
	}
	if h.Status == "" {
		h.Status = stage.StatusRunning // its first record is still to come
	}
	return h
}

func groupsOf(p *pipelines.Resolved) []group {
	groups := make([]group, 0, len(p.Groups))
	for _, g := range p.Groups {
		groups = append(groups, group{g.Name, g.Instances})
	}
	return groups
}

// isMatrix says whether rows are those of cells: these have no kind.
func isMatrix(rows []workflows.StageState) bool { return len(rows) > 0 && rows[0].Kind == "" }
