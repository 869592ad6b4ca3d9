package report

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Part is what the name of a metric in a record says: `eu.rtt.during.split`.
type Part struct{ Metric, Group, Phase, Event string }

func (p Part) compare(other Part) int {
	return cmp.Or(cmp.Compare(p.Metric, other.Metric), cmp.Compare(p.Group, other.Group), cmp.Compare(p.Event, other.Event),
		slices.Index(pipelines.Phases, p.Phase)-slices.Index(pipelines.Phases, other.Phase))
}

// EventsOf are the names of a run's events; none where they aren't known.
func EventsOf(folder runs.Folder) []string {
	pipeline, err := folder.ReadPipeline()
	if err != nil {
		return nil // then the names of metrics are taken as they are
	}
	var names []string
	for _, s := range pipeline.Stages {
		if s.Run == nil {
			continue
		}
		for _, e := range s.Run.Events {
			if e.Name != "" && !slices.Contains(names, e.Name) {
				names = append(names, e.Name)
			}
		}
	}
	return names
}

// Parts takes names of a record's metrics apart.
func Parts(rec runs.Record, events []string) func(name string) Part {
	return func(name string) Part {
		var p Part
		for _, event := range events {
			for _, phase := range pipelines.Phases {
				if before, ends := strings.CutSuffix(name, "."+phase+"."+event); ends && before != "" && p.Event == "" {
					name, p.Phase, p.Event = before, phase, event
				}
			}
		}
		group, rest, dotted := strings.Cut(name, ".")
		if _, known := rec.Groups[group]; dotted && known {
			name, p.Group = rest, group
		}
		p.Metric = name
		return p
	}
}

// pictureTitle is the legend of pictures.
const pictureTitle = "MIN ─ P50 ● P90 ━ P99 ─ MAX ·"

// pictureWidth is how many signs wide a picture is.
const pictureWidth = 29

// decades is from what ratio of greatest to least on the scale of a picture is logarithmic.
const decades = 50

// axis is the scale that the pictures of one metric share, so that groups and phases can be held beside each other.
type axis struct {
	low, high float64
	log       bool
}

// axes are the scales of metrics.
func axes(metrics map[string]pipelines.Summary, parts func(string) Part) map[string]axis {
	all := map[string]axis{}
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		m, s := parts(name).Metric, metrics[name]
		a, known := all[m]
		if !known {
			a = axis{low: s.Min, high: s.Max}
		}
		a.low, a.high = min(a.low, s.Min), max(a.high, s.Max)
		a.log = a.low > 0 && a.high/a.low >= decades
		all[m] = a
	}
	return all
}

// at is where a value is drawn.
func (a axis) at(value float64) int {
	low, high := a.low, a.high
	if a.log {
		low, high, value = math.Log(low), math.Log(high), math.Log(value)
	}
	if !(high > low) {
		return 0
	}
	share := value/(high-low) - low/(high-low) // in this order, nothing overflows that is no share
	return min(max(int(math.Round(share*(pictureWidth-1))), 0), pictureWidth-1)
}

// picture shows where the values of a metric lie.
func picture(a axis, s pipelines.Summary) string {
	line := []rune(strings.Repeat(" ", pictureWidth))
	draw := func(from, to float64, sign rune) {
		for i := a.at(from); i <= a.at(to); i++ {
			line[i] = sign
		}
	}
	draw(s.P99, s.Max, '·')
	draw(s.P90, s.P99, '─')
	draw(s.Min, s.P50, '─')
	draw(s.P50, s.P90, '━')
	line[a.at(s.P50)] = '●'
	return string(line)
}

// pictured adds pictures to rows of metrics, of which the first is the titles.
func pictured(rows [][]terminal.Cell, names []string, metrics map[string]pipelines.Summary, parts func(string) Part) {
	scales := axes(metrics, parts)
	rows[0] = append(rows[0], head(pictureTitle)...)
	for i, name := range names {
		rows[i+1] = append(rows[i+1], terminal.Cell{Text: picture(scales[parts(name).Metric], metrics[name]), Style: terminal.Cyan})
	}
}
