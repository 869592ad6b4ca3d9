package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// rowsMessage tells the rows that changed, by their place, out of so many.
type rowsMessage struct {
	Total int       `json:"total"`
	Rows  []indexed `json:"rows"`
}

type indexed struct {
	Index int `json:"i"`
	Row   row `json:"row"`
}

// tellRows works the rows out, and tells those that have changed.
func (r *run) tellRows(tell teller) {
	r.rows = r.rowsNow()
	var changed []indexed
	told := make([][]byte, len(r.rows))
	for i, row := range r.rows {
		data, err := json.Marshal(row)
		if err != nil {
			continue
		}
		told[i] = data
		if i >= len(r.rowsTold) || !bytes.Equal(data, r.rowsTold[i]) {
			changed = append(changed, indexed{i, row})
		}
	}
	if len(changed) > 0 || len(told) != len(r.rowsTold) {
		tell("stages", rowsMessage{Total: len(told), Rows: changed})
	}
	r.rowsTold = told
}

// rowsNow are the rows of the stages, or of the cells: as the services tell while the run is under way, else as recorded.
func (r *run) rowsNow() []row {
	var rows []row
	switch {
	case r.state != nil:
		for _, s := range r.state.Stages {
			rows = append(rows, row{StageState: s})
		}
		if isMatrix(r.state.Stages) {
			for i := range rows {
				rows[i].Run = rows[i].Name
			}
		}
	case len(r.record.Cells) > 0:
		for _, c := range r.record.Cells {
			rows = append(rows, row{
				StageState: workflows.StageState{Name: c.Run, Phase: ended(c.Verdict), Verdict: c.Verdict, Reason: c.Reason}, Run: c.Run, Values: c.Values,
			})
		}
	case r.pipeline != nil && len(r.pipeline.Stages) > 0:
		rows = r.pipelineRows()
	default:
		for _, result := range r.record.Stages {
			rows = append(rows, resultRow(result))
		}
	}
	r.addNotes(rows)
	return rows
}

// pipelineRows are the stages of the pipeline, in its order, as far as there are results.
func (r *run) pipelineRows() []row {
	results := map[string]stage.Result{}
	for _, result := range r.record.Stages {
		results[result.Stage] = result
	}
	var rows []row
	for _, s := range r.pipeline.Stages {
		result, there := results[s.Name]
		if !there {
			rows = append(rows, row{StageState: workflows.StageState{Name: s.Name, Kind: s.Kind, Phase: workflows.PhasePending}})
			continue
		}
		rows = append(rows, resultRow(result))
	}
	return rows
}

func resultRow(result stage.Result) row {
	return row{StageState: workflows.StageState{
		Name: result.Stage, Kind: result.Kind, Attempt: result.Attempt, Phase: workflows.PhaseEnded,
		Verdict: result.Verdict, Reason: result.Reason, Started: result.Started, Ended: result.Ended,
	}, Note: strings.Join(result.Notes, " · ")}
}

func ended(v stage.Verdict) string {
	if v == "" {
		return workflows.PhasePending
	}
	return workflows.PhaseEnded
}

// addNotes says of stages how often they were tried, and what the record notes.
func (r *run) addNotes(rows []row) {
	tries := map[string]int{}
	for _, t := range r.record.Tries {
		tries[t.Stage]++
	}
	for i := range rows {
		if n := tries[rows[i].Name]; n > 0 {
			rows[i].Note = joined(rows[i].Note, fmt.Sprintf("tried %d times before", n))
		}
	}
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + " · " + b
}

// eventLog is the run's events as they come; the newest are kept for who comes later.
type eventLog struct {
	tail  tail
	first int // place of the first one kept
	kept  []runs.Event
}

const mostEvents = 1000

// eventsMessage tells events in order, and the place of the first in the log: a reader can tell those it has already.
type eventsMessage struct {
	From   int          `json:"from"`
	Events []runs.Event `json:"events"`
}

// read tells the events that are new. A line that was cut, or isn't an event, is left out.
func (l *eventLog) read(path string, tell teller) (more bool) {
	from := l.first + len(l.kept)
	var fresh []runs.Event
	anew, more, _ := l.tail.read(path, func(_ int64, line []byte) {
		var e runs.Event
		if json.Unmarshal(line, &e) == nil && e.Text != "" {
			fresh = append(fresh, e)
		}
	})
	if anew {
		l.first, l.kept, from = 0, nil, 0
	}
	if len(fresh) == 0 {
		return more
	}
	l.kept = append(l.kept, fresh...)
	if drop := len(l.kept) - mostEvents; drop > 0 {
		l.kept, l.first = append([]runs.Event(nil), l.kept[drop:]...), l.first+drop
	}
	if drop := len(fresh) - mostEvents; drop > 0 {
		fresh, from = fresh[drop:], from+drop
	}
	tell("events", eventsMessage{From: from, Events: fresh})
	return more
}

func (l *eventLog) whole(tell teller) { tell("events", eventsMessage{From: l.first, Events: l.kept}) }
