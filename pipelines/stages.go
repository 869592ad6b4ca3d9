package pipelines

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

const (
	maxStages   = 1000
	maxIncludes = 1000 // splices, counting those inside of included files
)

// stageNode is a stage at its place in the spliced list.
type stageNode struct {
	index  int
	syntax *stageSyntax
	scope  *scope
	name   string
	kind   Kind
	needs  []int
	// before has all stages that have ended when this one begins.
	before set
	// placed has the groups that are placed when this stage begins, and after those when it has ended.
	placed, after set
}

// set is a set of stages or groups, by index.
type set []uint64

func newSet(n int) set       { return make(set, (n+63)/64) }
func (s set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }
func (s set) empty() bool    { return !slices.ContainsFunc(s, func(w uint64) bool { return w != 0 }) }
func (s set) meets(other set) int {
	for i := range s {
		if common := s[i] & other[i]; common != 0 {
			return 64*i + bits.TrailingZeros64(common)
		}
	}
	return -1
}
func (s set) addAll(other set) {
	for i := range s {
		s[i] |= other[i]
	}
}

// splicer lays the stages of included files into one list.
type splicer struct {
	doc   *Document
	count int
	full  bool
}

// readStages splices, names and connects the stages.
func (d *Document) readStages() {
	d.byName = map[string]*stageNode{}
	s := &splicer{doc: d}
	s.splice(d.syntax.stages, d.root, []string{d.root.src.path})
	if len(d.stages) == 0 && d.syntax.has("stages") && len(d.files.faults.faults) == 0 {
		d.files.faults.faultf(d.syntax.key("stages"), "the pipeline has no stage")
	}
	d.nameStages()
	d.connect()
	for _, n := range d.stages {
		if n.syntax.run != nil {
			for i := range n.syntax.run.events {
				if e := &n.syntax.run.events[i]; e.name.text != "" {
					d.events[e.name.text] = d.events[e.name.text] || e.ends()
				}
			}
		}
	}
}

// splice appends stages; path has the files that are being included.
func (s *splicer) splice(items []stageItem, in *scope, path []string) {
	for _, item := range items {
		switch {
		case s.full:
			return
		case item.include != nil:
			s.include(item.include, in, path)
		case len(s.doc.stages) >= maxStages:
			s.full = true
			s.doc.files.faults.faultf(item.stage.place, "a pipeline has at most %d stages", maxStages)
		default:
			s.doc.stages = append(s.doc.stages, &stageNode{index: len(s.doc.stages), syntax: item.stage, scope: in, kind: item.stage.kind()})
		}
	}
}

func (s *splicer) include(i *includeSyntax, in *scope, path []string) {
	faults := s.doc.files.faults
	name, ok := i.file.literal.(string)
	if !ok {
		return
	}
	if s.count++; s.count > maxIncludes {
		s.full = true
		faults.faultf(i.place, "a pipeline includes at most %d times", maxIncludes)
		return
	}
	target, ok := s.doc.files.join(faults, i.file.at, name)
	if !ok {
		return
	}
	if at := slices.Index(path, target); at >= 0 {
		faults.faultf(i.file.at, "files include each other in a circle: %s", strings.Join(append(path[at:len(path):len(path)], target), " → "))
		return
	}
	f := s.doc.files.file(target, i.file.at)
	if f == nil {
		return
	}
	included := f.include(s.doc.files)
	if s.doc.weight += f.weight; s.doc.weight > maxValues {
		s.full = true
		faults.faultf(i.place, "the pipeline holds more than %d values once its includes are spliced", maxValues)
		return
	}
	inner := newScope(s.doc, f.src, included.parameters)
	inner.parent, inner.with = in, make(map[string]value, len(i.with))
	s.checkWith(i, inner)
	s.splice(included.stages, inner, append(path[:len(path):len(path)], target))
}

// checkWith holds the values of `with` against the parameters of the file.
func (s *splicer) checkWith(i *includeSyntax, inner *scope) {
	faults := s.doc.files.faults
	for n := range i.with {
		w := &i.with[n]
		p, ok := inner.parameter(w.key)
		if !ok {
			u := unknown("parameter", w.key, keysOf(inner.parameters))
			faults.suggestf(w.at, u.suggestion, "%s of %s", u.message, inner.src.path)
			continue
		}
		if w.value.expr != nil {
			w.value.expr.want = p.inferred
			w.value.form = &scalar{kind: p.inferred, allow: p.allows}
			inner.with[w.key] = w.value
			continue
		}
		inner.with[w.key] = w.value
		if v := w.value.as(faults, p.inferred); v != nil {
			if err := p.allows(v); err != nil {
				faults.faultf(w.value.at, "%v", err)
			}
		}
	}
	for _, p := range inner.parameters {
		if _, given := inner.with[p.key]; !given && p.value.fallback.literal == nil && !p.value.fallback.written() {
			faults.faultf(i.place, "%s needs a value for the parameter `%s`: with: {%s: …}", inner.src.path, p.key, p.key)
		}
	}
}

// nameStages gives every stage its name: its own, or its kind with a number.
func (d *Document) nameStages() {
	for _, n := range d.stages {
		if n.syntax.name.text == "" {
			continue
		}
		n.name = n.syntax.name.text
		if other, taken := d.byName[n.name]; taken {
			d.files.faults.faultf(n.syntax.name.at, "the name `%s` is taken by the stage at %s", n.name, other.syntax.place)
			continue
		}
		d.byName[n.name] = n
	}
	last := map[Kind]int{}
	for _, n := range d.stages {
		for n.name == "" {
			last[n.kind]++
			name := string(n.kind)
			if last[n.kind] > 1 {
				name = fmt.Sprintf("%s-%d", n.kind, last[n.kind])
			}
			if name == "" {
				name = fmt.Sprintf("stage-%d", n.index+1) // of no kind: a fault already
			}
			if d.byName[name] == nil {
				n.name = name
				d.byName[name] = n
			}
			if n.kind == "" {
				break
			}
		}
	}
}

// connect settles what each stage needs, and what has ended before it.
func (d *Document) connect() {
	for i, n := range d.stages {
		d.disordered = d.disordered || n.kind == ""
		if !n.syntax.has("needs") {
			if i > 0 {
				n.needs = []int{i - 1}
			}
			continue
		}
		for _, need := range n.syntax.needs {
			other := d.byName[need.text]
			switch {
			case need.text == "":
				d.disordered = true
			case other == nil:
				d.disordered = true
				u := unknown("stage", need.text, d.stageNames())
				d.files.faults.suggestf(need.at, u.suggestion, "%s", u.message)
			case slices.Contains(n.needs, other.index):
				d.files.faults.faultf(need.at, "the stage `%s` is named twice", need.text)
			default:
				n.needs = append(n.needs, other.index)
			}
		}
	}
	d.order()
}

// order fills `before` of every stage, stage after stage in an order in which needs stand first.
func (d *Document) order() {
	waiting := make([]int, len(d.stages))
	dependents := make([][]int, len(d.stages))
	var ready []int
	for i, n := range d.stages {
		n.before, n.placed, n.after = newSet(len(d.stages)), newSet(len(d.groups)), newSet(len(d.groups))
		waiting[i] = len(n.needs)
		for _, need := range n.needs {
			dependents[need] = append(dependents[need], i)
		}
		if len(n.needs) == 0 {
			ready = append(ready, i)
		}
	}
	done := 0
	for ; done < len(ready); done++ {
		n := d.stages[ready[done]]
		for _, need := range n.needs {
			n.before.addAll(d.stages[need].before)
			n.before.add(need)
			n.placed.addAll(d.stages[need].after)
		}
		n.after.addAll(n.placed)
		if n.syntax.schedule != nil {
			n.after.addAll(d.groupSet(n.scheduled(d)))
		}
		for _, next := range dependents[n.index] {
			if waiting[next]--; waiting[next] == 0 {
				ready = append(ready, next)
			}
		}
	}
	if done < len(d.stages) {
		d.disordered = true
		d.circle(waiting)
	}
}

// groupSet is the set of the groups with these names.
func (d *Document) groupSet(names []string) set {
	s := newSet(len(d.groups))
	for _, name := range names {
		if i, ok := d.groupIndex[name]; ok {
			s.add(i)
		}
	}
	return s
}

// circle adds a fault with one circle among the stages that still wait.
func (d *Document) circle(waiting []int) {
	at := slices.IndexFunc(waiting, func(n int) bool { return n > 0 })
	var path []int
	for !slices.Contains(path, at) {
		path = append(path, at)
		at = d.stages[at].needs[slices.IndexFunc(d.stages[at].needs, func(i int) bool { return waiting[i] > 0 })]
	}
	path = path[slices.Index(path, at):]
	var names []string
	for _, i := range append(path, path[0]) {
		names = append(names, d.stages[i].name)
	}
	first := d.stages[path[0]]
	d.files.faults.faultf(first.syntax.key("needs"), "stages need each other in a circle: %s", strings.Join(names, " → "))
}

// precedes says whether stage a has ended when b begins.
func (d *Document) precedes(a, b *stageNode) bool { return b.before.has(a.index) }
