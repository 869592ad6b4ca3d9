package report

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/groundplan/groundplan/sidecar/control"
)

const (
	// mostInstances bounds the instances of all groups together that are told apart, whatever a pipeline says.
	mostInstances = 1_000_000
	// mostUnnamed bounds those of a group where no pipeline says how many there are.
	mostUnnamed = 100_000
)

// census is what became of every instance.
type census struct{ groups []*group }

// group is a group's instances; those without an outcome are nil.
type group struct {
	name  string
	lives []*life
}

// life is what became of one instance over all run stages.
type life struct {
	group   string
	index   int
	outcome string // the worst of its stages'
	stage   string // the stage of that outcome, or its last one
	reason  string
	lines   []string
	exit    int
	signal  string
	starts  int
	host    string
	memory  int64   // the largest of its stages, in bytes
	cpu     float64 // over its stages, in seconds
	seconds float64 // over its stages
}

func (l *life) name() string { return l.group + "/" + strconv.Itoa(l.index) }

// badness orders outcomes as the record's figures do.
var badness = map[string]int{
	control.OutcomeKilled: -1, control.OutcomeSucceeded: 0, control.OutcomeSilent: 1, control.OutcomeFailed: 2, control.OutcomeCrashed: 3,
}

// count reads what became of the instances in every run stage: of each the attempt that its result is of, or the newest
// one seen.
func (m *material) count() *census {
	c := &census{}
	left := mostInstances
	for _, g := range m.pipeline.Groups {
		n := max(min(g.Instances, left), 0)
		left -= n
		c.groups = append(c.groups, &group{g.Name, make([]*life, n)})
		if n < g.Instances {
			m.fault(fmt.Errorf("the group %q has %d instances: only %d are looked at", g.Name, g.Instances, n))
		}
	}
	for _, name := range m.stageFiles(".jsonl") {
		for _, row := range m.stageRows(name) {
			c.add(row, len(m.pipeline.Groups) == 0)
		}
	}
	return c
}

// stageRows are the rows of a stage's newest attempt, one for each instance.
func (m *material) stageRows(name string) []control.Instance {
	newest := 0
	for _, a := range m.attempts {
		if a.Stage == name {
			newest = max(newest, a.Attempt)
		}
	}
	type who struct {
		group string
		index int
	}
	rows := map[who]control.Instance{}
	file := path.Join("stages", name+".jsonl")
	bad, err := lines(m.files, file, func(row control.Instance) {
		n, err := strconv.Atoi(strings.TrimPrefix(row.Attempt, name+"-"))
		if err != nil || n < newest || len(rows) >= mostInstances {
			return
		}
		if n > newest { // a newer one than anybody has told of
			newest = n
			clear(rows)
		}
		row.LastLines = shown(row.LastLines)
		row.Stage = name
		if _, told := rows[who{row.Group, row.Index}]; !told {
			rows[who{row.Group, row.Index}] = row
		}
	})
	m.badLines(file, bad)
	m.fault(err)
	list := make([]control.Instance, 0, len(rows))
	for _, row := range rows {
		list = append(list, row)
	}
	slices.SortFunc(list, func(a, b control.Instance) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Index, b.Index))
	})
	return list
}

// add lays one row over what is known of its instance. grow takes in groups that no pipeline has named.
func (c *census) add(row control.Instance, grow bool) {
	at := slices.IndexFunc(c.groups, func(g *group) bool { return g.name == row.Group })
	if at < 0 && grow && row.Group != "" && len(c.groups) < 10 {
		at = len(c.groups)
		c.groups = append(c.groups, &group{name: row.Group})
	}
	if at < 0 || row.Index < 0 {
		return
	}
	g := c.groups[at]
	if grow && row.Index < mostUnnamed {
		g.lives = append(g.lives, make([]*life, max(row.Index+1-len(g.lives), 0))...)
	}
	if row.Index >= len(g.lives) {
		return
	}
	l := g.lives[row.Index]
	if l == nil {
		l = &life{group: row.Group, index: row.Index, outcome: row.Outcome}
		g.lives[row.Index] = l
	}
	if badness[row.Outcome] >= badness[l.outcome] {
		l.outcome, l.stage, l.reason, l.lines = row.Outcome, row.Stage, row.Reason, row.LastLines
		l.exit, l.signal = row.Exit, row.Signal
	}
	l.host, l.starts = row.Host, max(l.starts, row.Starts)
	l.memory = max(l.memory, row.PeakMemory)
	l.cpu += max(row.CPU, 0)
	l.seconds += max(row.Ended.Sub(row.Started).Seconds(), 0)
}

// all are the instances with an outcome, in the order of the groups.
func (c *census) all() []*life {
	var list []*life
	for _, g := range c.groups {
		for _, l := range g.lives {
			if l != nil {
				list = append(list, l)
			}
		}
	}
	return list
}

// size is the number of instances.
func (c *census) size() int {
	n := 0
	for _, g := range c.groups {
		n += len(g.lives)
	}
	return n
}
