package explain

import (
	"slices"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
)

// row is one line of the drawing: the graph's part, and the stage whose node stands in it (nil between nodes).
type row struct {
	graph string
	stage *pipelines.Stage
}

// draw lays the stages out from top to bottom, each below all it needs, with their needs as lines beside them.
func draw(stages []pipelines.Stage) []row {
	order := sorted(stages)
	children := map[string][]string{}
	for _, s := range order {
		for _, need := range s.Needs {
			children[need] = append(children[need], s.Name)
		}
	}
	d := &drawing{}
	for _, s := range order {
		d.node(s, children[s.Name])
	}
	return d.rows
}

// sorted puts every stage behind all it needs, and keeps the file's order where that leaves a choice. What stands in a
// circle, which a checked pipeline has not, comes last as it is.
func sorted(stages []pipelines.Stage) []*pipelines.Stage {
	var out []*pipelines.Stage
	placed := map[string]bool{}
	for len(out) < len(stages) {
		before := len(out)
		for i := range stages {
			s := &stages[i]
			ready := !slices.ContainsFunc(s.Needs, func(need string) bool { return !placed[need] })
			if !placed[s.Name] && ready {
				placed[s.Name] = true
				out = append(out, s)
				break
			}
		}
		if len(out) == before {
			for i := range stages {
				if !placed[stages[i].Name] {
					placed[stages[i].Name] = true
					out = append(out, &stages[i])
				}
			}
		}
	}
	return out
}

// drawing keeps the lanes: lane i leads down to the stage of that name; "" is free.
type drawing struct {
	lanes []string
	rows  []row
}

func (d *drawing) node(s *pipelines.Stage, children []string) {
	if len(d.lanes) == 0 && len(d.rows) > 0 {
		d.rows = append(d.rows, row{}) // it belongs to nothing above
	}
	at := d.join(s.Name)
	cells := d.cells()
	cells[at] = "●"
	d.lanes[at] = ""
	d.rows = append(d.rows, row{graph: strings.Join(cells, " "), stage: s})
	d.fork(at, children)
}

// join leads all lanes that end in a stage into the leftmost of them, and gives that one; a free lane when none does.
func (d *drawing) join(name string) int {
	at := slices.Index(d.lanes, name)
	if at < 0 {
		return d.free()
	}
	var others []int
	for i := at + 1; i < len(d.lanes); i++ {
		if d.lanes[i] == name {
			others = append(others, i)
		}
	}
	if len(others) > 0 {
		d.bend(at, others, "├", "┴", "╯")
		for _, i := range others {
			d.lanes[i] = ""
		}
	}
	d.trim()
	return at
}

// fork opens a lane for each child, the first in the node's own column.
func (d *drawing) fork(at int, children []string) {
	if len(children) == 0 {
		d.trim()
		return
	}
	d.lanes[at] = children[0]
	var others []int
	for _, child := range children[1:] {
		i := d.free()
		d.lanes[i] = child
		others = append(others, i)
	}
	if len(others) == 0 {
		return
	}
	slices.Sort(others)
	// A lane left of the node can't be reached by a line to the right: free gives only lanes to its right then.
	d.bend(at, others, "├", "┬", "╮")
}

// free finds a lane that is not in use, to the right of all that are: lines then bend one way only.
func (d *drawing) free() int {
	d.lanes = append(d.lanes, "")
	return len(d.lanes) - 1
}

// trim takes the free lanes at the right away.
func (d *drawing) trim() {
	for len(d.lanes) > 0 && d.lanes[len(d.lanes)-1] == "" {
		d.lanes = d.lanes[:len(d.lanes)-1]
	}
}

func (d *drawing) cells() []string {
	cells := make([]string, len(d.lanes))
	for i, lane := range d.lanes {
		cells[i] = " "
		if lane != "" {
			cells[i] = "│"
		}
	}
	return cells
}

// bend draws a row in which a line from column at meets the others, crossing what lies between.
func (d *drawing) bend(at int, others []int, first, middle, last string) {
	cells := d.cells()
	end := others[len(others)-1]
	var b strings.Builder
	for i, cell := range cells {
		gap := " "
		switch {
		case i == at:
			cell, gap = first, "─"
		case i == end:
			cell = last
		case i > at && i < end && slices.Contains(others, i):
			cell, gap = middle, "─"
		case i > at && i < end && cell == "│":
			cell, gap = "┼", "─"
		case i > at && i < end:
			cell, gap = "─", "─"
		}
		b.WriteString(cell + gap)
	}
	d.rows = append(d.rows, row{graph: strings.TrimRight(b.String(), " ")})
}
