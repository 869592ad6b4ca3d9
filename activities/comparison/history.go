package comparison

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Outcome is what came of a comparison, as it is kept in the run's folder and shown.
type Outcome struct {
	Run string `json:"run"`
	// With are the runs that it was held against, the newest first.
	With     []string  `json:"with"`
	Alpha    float64   `json:"alpha"`
	Findings []Finding `json:"findings"`
}

// Regressed are the findings that say so.
func (o Outcome) Regressed() []Finding {
	return slices.DeleteFunc(slices.Clone(o.Findings), func(f Finding) bool { return f.Judgement != Regressed })
}

// Hindrance says why two runs can't be compared, in a sentence; empty when they can.
func Hindrance(a, b runs.Record) string {
	switch {
	case a.Pipeline != b.Pipeline:
		return fmt.Sprintf("%s is a run of the pipeline %s and %s one of %s", a.ID, a.Pipeline, b.ID, b.Pipeline)
	case a.Ground != b.Ground:
		return fmt.Sprintf("%s ran on the ground %s and %s on %s", a.ID, a.Ground, b.ID, b.Ground)
	}
	if differ := differences(a.Parameters, b.Parameters); differ != "" {
		return fmt.Sprintf("their parameters differ (%s)", differ)
	}
	if differ := differences(a.Cell, b.Cell); differ != "" {
		return fmt.Sprintf("they are different cells of the matrix (%s)", differ)
	}
	for _, r := range []runs.Record{a, b} {
		switch {
		case r.Status != stage.StatusEnded:
			return r.ID + " has not ended"
		case r.Verdict == stage.Invalid || r.Verdict == stage.Cancelled:
			return fmt.Sprintf("%s ended %s: what it measured says nothing about the subject", r.ID, r.Verdict)
		case len(r.Metrics) == 0:
			return r.ID + " has no metrics: no collect stage came to it, or its instances recorded none"
		}
	}
	return ""
}

// differences names what two sets of values don't have in common: `rate: 10Mbit and 20Mbit`.
func differences(a, b map[string]any) string {
	names := map[string]bool{}
	for name := range a {
		names[name] = true
	}
	for name := range b {
		names[name] = true
	}
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if one, other := fmt.Sprint(a[name]), fmt.Sprint(b[name]); one != other {
			differ = append(differ, fmt.Sprintf("%s: %s and %s", name, one, other))
		}
	}
	return strings.Join(differ, ", ")
}

// Load reads what a run has measured. The summaries may be given where the run's record isn't written yet.
func Load(folder runs.Folder, id string, metrics map[string]pipelines.Summary) (Run, error) {
	r := Run{ID: id, Metrics: metrics}
	err := runs.ReadJSON(folder.Samples(), &r.Samples)
	if errors.Is(err, fs.ErrNotExist) { // of an earlier version: its figures as a whole can be compared
		err = nil
	}
	if err != nil {
		return r, fmt.Errorf("reading what the instances of %s measured: %w", id, err)
	}
	return r, nil
}

// String is a finding in a few words, for a sentence.
func (f Finding) String() string {
	change := fmt.Sprintf("%+.1f %%", 100*f.Change)
	if f.Before == 0 {
		change = "from nothing"
	}
	return fmt.Sprintf("%s is %.4g instead of %.4g (%s, where %v is tolerated; p = %.2g)", f.Figure, f.After, f.Before, change, f.Tolerance, f.P)
}

// Kind is what a run has in common with those that it may be compared with: two ended runs with figures are comparable
// when their kinds are the same.
func Kind(r runs.Record) string {
	values := func(m map[string]any) string {
		var text strings.Builder
		for _, name := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(&text, "%q=%q ", name, fmt.Sprint(m[name]))
		}
		return text.String()
	}
	return fmt.Sprintf("%s on %s %swith %s", r.Pipeline, r.Ground, values(r.Parameters), values(r.Cell))
}
