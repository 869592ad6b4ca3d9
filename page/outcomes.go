package page

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// instance is a line of stages/<stage>.jsonl, as far as the page shows it.
type instance struct {
	Group     string   `json:"group"`
	Index     int      `json:"index"`
	Attempt   string   `json:"attempt"`
	Host      string   `json:"host,omitempty"`
	Data      string   `json:"data,omitempty"`
	Started   string   `json:"started,omitempty"`
	Ended     string   `json:"ended,omitempty"`
	Outcome   string   `json:"outcome"`
	Reason    string   `json:"reason,omitempty"`
	Exit      int      `json:"exit"`
	Signal    string   `json:"signal,omitempty"`
	Starts    int      `json:"starts,omitempty"`
	Memory    int64    `json:"peakMemory,omitempty"`
	CPU       float64  `json:"cpu,omitempty"`
	LastLines []string `json:"lastLines,omitempty"`
}

// ending is as much of the line as the grid needs.
type ending struct {
	Group   string `json:"group"`
	Index   int    `json:"index"`
	Attempt string `json:"attempt"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

// Letters stand for outcomes: a stage of 10,000 instances is 10,000 bytes.
const (
	letterNone  = '.' // nothing is known of it yet
	letterOther = '?'
)

var letters = map[string]byte{"succeeded": 's', "failed": 'f', "crashed": 'c', "silent": 'i', "killed": 'k'}

// mostReasons is how many instances of a stage are told with why they did not succeed, mostInstances how many a run may
// have to be shown one by one, and mostKept how many are kept over its stages: nine bytes each.
const (
	mostReasons   = 200
	mostInstances = 200_000
	mostKept      = 4_000_000
)

// outcomes is what became of the instances, stage by stage.
type outcomes struct {
	groups  []group
	at      map[string]int // group → its place
	starts  []int          // group's place → slot of its first instance
	slots   int
	stages  map[string]*stageOutcomes
	order   map[string]int // stage → its place in the pipeline
	skipped bool           // there are too many
}

// stageOutcomes is one stage's newest attempt.
type stageOutcomes struct {
	tail    tail
	attempt string
	letters []byte  // slot → letter
	lines   []int64 // slot → where its line is in the file
	reasons []reason
}

// reason says why an instance did not succeed.
type reason struct {
	Group   int    `json:"g"`
	Index   int    `json:"i"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

// outcomesMessage tells outcomes of a stage: all of them, a string of letters per group, or those that are new, as group,
// index and letter in turns.
type outcomesMessage struct {
	Stage   string   `json:"stage"`
	Attempt string   `json:"attempt"`
	Whole   []string `json:"whole,omitempty"`
	Fresh   []any    `json:"fresh,omitempty"`
	Reasons []reason `json:"reasons,omitempty"`
	// Stages are all that there are outcomes of; with Whole only.
	Stages []string `json:"stages,omitempty"`
}

func newOutcomes() *outcomes { return &outcomes{stages: map[string]*stageOutcomes{}} }

// place says which groups there are; the outcomes can be read from then on.
func (o *outcomes) place(groups []group, stages []pipelines.Stage) {
	o.groups, o.at, o.starts, o.slots, o.order = groups, map[string]int{}, nil, 0, map[string]int{}
	for i, s := range stages {
		o.order[s.Name] = i
	}
	for i, g := range groups {
		o.at[g.Name] = i
		o.starts = append(o.starts, o.slots)
		o.slots += max(g.Instances, 0)
	}
	o.skipped = o.slots > mostInstances
}

// slot is where an instance is kept.
func (o *outcomes) slot(group string, index int) (at, slot int, ok bool) {
	at, ok = o.at[group]
	if !ok || index < 0 || index >= o.groups[at].Instances {
		return 0, 0, false
	}
	return at, o.starts[at] + index, true
}

// read reads what is new of every stage, and tells it.
func (o *outcomes) read(folder runs.Folder, tell teller) (more bool) {
	if len(o.groups) == 0 || o.skipped {
		return false
	}
	entries, err := os.ReadDir(filepath.Join(string(folder), "stages"))
	if err != nil {
		return false
	}
	for _, e := range entries {
		name, found := strings.CutSuffix(e.Name(), ".jsonl")
		if !found || !e.Type().IsRegular() {
			continue
		}
		if o.stages[name] == nil {
			o.stages[name] = &stageOutcomes{}
		}
		more = o.readStage(name, o.stages[name], folder, tell) || more
	}
	o.forget()
	return more
}

// forget lets go of the earliest stages where a run has too many to keep them all. What comes of one later begins anew.
func (o *outcomes) forget() {
	var kept []string
	for name, s := range o.stages {
		if s.letters != nil {
			kept = append(kept, name)
		}
	}
	slices.SortFunc(kept, func(a, b string) int { return cmp.Compare(o.order[a], o.order[b]) })
	for len(kept) > 1 && len(kept)*o.slots > mostKept {
		s := o.stages[kept[0]]
		s.attempt, s.letters, s.lines, s.reasons = "", nil, nil, nil
		kept = kept[1:]
	}
}

func (o *outcomes) readStage(name string, s *stageOutcomes, folder runs.Folder, tell teller) bool {
	m := outcomesMessage{Stage: name}
	before, known := s.attempt, len(s.reasons)
	anew, more, _ := s.tail.read(folder.Stage(name), func(offset int64, line []byte) {
		var row ending
		if json.Unmarshal(line, &row) != nil {
			return // cut by a crash, or no line of ours
		}
		at, slot, ok := o.slot(row.Group, row.Index)
		if !ok {
			return
		}
		if row.Attempt != s.attempt || s.letters == nil {
			s.begin(row.Attempt, o.slots)
			m.Fresh, known = nil, 0
		}
		s.letters[slot], s.lines[slot] = letterOf(row.Outcome), offset
		m.Fresh = append(m.Fresh, at, row.Index, string(s.letters[slot]))
		if letter := s.letters[slot]; letter != 's' && letter != letters["killed"] && len(s.reasons) < mostReasons { // who was killed has not failed
			s.reasons = append(s.reasons, reason{at, row.Index, row.Outcome, row.Reason})
		}
	})
	if anew && len(m.Fresh) == 0 { // the file has gone or begins anew
		s.begin("", o.slots)
		tell("outcomes", o.message(name, s))
		return more
	}
	if len(m.Fresh) == 0 {
		return more
	}
	if anew || before != s.attempt || len(m.Fresh) > o.slots {
		tell("outcomes", o.message(name, s))
		return more
	}
	m.Attempt, m.Reasons = s.attempt, s.reasons[known:]
	tell("outcomes", m)
	return more
}

func (s *stageOutcomes) begin(attempt string, slots int) {
	s.attempt, s.reasons = attempt, nil
	s.letters, s.lines = make([]byte, slots), make([]int64, slots)
	for i := range s.letters {
		s.letters[i], s.lines[i] = letterNone, -1
	}
}

func letterOf(outcome string) byte {
	if l := letters[outcome]; l != 0 {
		return l
	}
	return letterOther
}

// message tells all of a stage.
func (o *outcomes) message(name string, s *stageOutcomes) outcomesMessage {
	m := outcomesMessage{Stage: name, Attempt: s.attempt, Reasons: s.reasons}
	if s.letters != nil {
		for i, g := range o.groups {
			m.Whole = append(m.Whole, string(s.letters[o.starts[i]:o.starts[i]+max(g.Instances, 0)]))
		}
	}
	for stage, s := range o.stages {
		if s.letters != nil {
			m.Stages = append(m.Stages, stage)
		}
	}
	slices.Sort(m.Stages)
	return m
}

// whole tells all of the last stage of the pipeline that there is something of; the others are asked for.
func (o *outcomes) whole(tell teller) {
	newest := ""
	for name, s := range o.stages {
		if s.letters != nil && (newest == "" || o.order[name] > o.order[newest]) {
			newest = name
		}
	}
	if newest != "" {
		tell("outcomes", o.message(newest, o.stages[newest]))
	}
}

// outcomes answers with those of one stage, while somebody reads the run's stream.
func (p *Page) outcomes(w http.ResponseWriter, r *http.Request, id string) {
	p.withStage(w, r, id, func(o *outcomes, name string, s *stageOutcomes) { answer(w, o.message(name, s)) })
}

// instance answers with what became of one instance in a stage.
func (p *Page) instance(w http.ResponseWriter, r *http.Request, id string) {
	group, index, err := instanceOf(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	offset := int64(-1)
	var path string
	p.withStage(w, r, id, func(o *outcomes, name string, s *stageOutcomes) {
		path = p.home.Run(id).Stage(name)
		if _, slot, ok := o.slot(group, index); ok && s.lines != nil {
			offset = s.lines[slot]
		}
	})
	if path == "" {
		return // it was refused
	}
	if offset < 0 {
		fail(w, http.StatusNotFound, fmt.Sprintf("nothing is known of %s/%d in this stage yet", group, index))
		return
	}
	row, err := readInstance(path, offset)
	if err != nil || row.Group != group || row.Index != index {
		fail(w, http.StatusNotFound, fmt.Sprintf("the line about %s/%d can't be read any more", group, index))
		return
	}
	answer(w, row)
}

// readInstance reads one line.
func readInstance(path string, offset int64) (instance, error) {
	var row instance
	file, err := os.Open(path)
	if err != nil {
		return row, err
	}
	defer file.Close()
	data := make([]byte, mostLine)
	n, err := file.ReadAt(data, offset)
	if n == 0 {
		return row, err
	}
	line, _, _ := strings.Cut(string(data[:n]), "\n")
	return row, json.Unmarshal([]byte(line), &row)
}

// withStage calls with the outcomes of the stage that a request names, under the lock of the run's feed.
func (p *Page) withStage(w http.ResponseWriter, r *http.Request, id string, do func(*outcomes, string, *stageOutcomes)) {
	f := p.feeds.find(runFeed(id))
	if f == nil {
		fail(w, http.StatusConflict, "open the run's stream first")
		return
	}
	name := r.URL.Query().Get("stage")
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.subject.(*run).outcomes
	s := o.stages[name]
	if s == nil || s.letters == nil {
		fail(w, http.StatusNotFound, fmt.Sprintf("there are no outcomes of a stage %q here; the report has those of every stage", name))
		return
	}
	do(o, name, s)
}

// instanceOf is the instance that a request names.
func instanceOf(r *http.Request) (group string, index int, err error) {
	group = r.URL.Query().Get("group")
	index, err = strconv.Atoi(r.URL.Query().Get("index"))
	if err != nil || index < 0 || group == "" || group == "." || group == ".." || strings.ContainsAny(group, "/\\\x00") {
		return "", 0, fmt.Errorf("name an instance by its group and its index, from 0")
	}
	return group, index, nil
}
