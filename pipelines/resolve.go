package pipelines

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

const (
	// maxCellWork bounds how many cells Load works out to check them, in values of the file; the others are checked when
	// they are resolved.
	maxCellWork = 300_000
	// maxTotalCost bounds the cost of all expressions of one cell, and maxLinks the links between groups, and the
	// latencies between regions, of all stages and events together.
	maxTotalCost = 2_000_000
	maxLinks     = 100_000
)

// resolver works out one cell.
type resolver struct {
	doc    *Document
	cell   cell
	faults *collector
	values map[*scope]map[string]any
	groups []Group
	cost   uint64
	links  int
	// tainted says that some value could not be worked out, so that sums over values mean nothing.
	tainted bool
}

// checkCells resolves cells for what is wrong with them.
func (d *Document) checkCells() {
	cells := d.cells
	if len(cells) == 0 {
		cells = []cell{{values: make([]any, len(d.axes))}} // the matrix is wrong: check what doesn't depend on it
	}
	for i, c := range cells {
		if i > 0 && i*d.weight > maxCellWork || d.files.faults.full() {
			return
		}
		found := &collector{}
		d.resolve(c, found)
		for _, f := range found.faults {
			if i > 0 && slices.ContainsFunc(d.files.faults.faults, func(other Fault) bool {
				return other.File == f.File && other.Line == f.Line && other.Column == f.Column
			}) {
				continue // another cell had the same trouble
			}
			if len(d.axes) > 0 && len(d.cells) > 0 {
				f.Message += " (in the cell " + c.describe(d.axes) + ")"
			}
			d.files.faults.add(f)
		}
	}
}

// Resolve works out the pipeline of one cell (nil without a matrix). An error is Faults when the cell's values are
// wrong.
func (d *Document) Resolve(values map[string]any) (Resolved, error) {
	c, err := d.cellOf(values)
	if err != nil {
		return Resolved{}, err
	}
	faults := &collector{}
	r := d.resolve(c, faults)
	if err := faults.err(); err != nil {
		return Resolved{}, err
	}
	r.Digest, err = r.digest()
	return r, err
}

func (r Resolved) digest() (string, error) {
	r.Digest = ""
	data, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("digesting the pipeline %s: %w", r.Name, err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

func (d *Document) resolve(c cell, faults *collector) Resolved {
	r := &resolver{doc: d, cell: c, faults: faults, values: map[*scope]map[string]any{}}
	out := Resolved{
		Name:        d.Name(),
		Description: get(r, d.root, d.syntax.description, ""),
		File:        d.files.bundle.File,
		Cell:        c.plain(d.axes),
		Env:         maps.Clone(d.files.bundle.Env),
		Parameters:  r.plainParameters(),
	}
	r.resolveGroups()
	out.Groups = r.groups
	out.Stages = compared(r.resolveStages(), d.files.bundle.Compare)
	out.Seed = d.seed(out)
	return out
}

// plainParameters works out the parameters of the pipeline itself.
func (r *resolver) plainParameters() map[string]any {
	values := r.parameters(r.doc.root)
	if len(values) == 0 {
		return nil
	}
	m := make(map[string]any, len(values))
	for name, v := range values {
		m[name] = plain(v)
	}
	return m
}

// parameters works out the parameters of a scope: the default, under what was given.
func (r *resolver) parameters(s *scope) map[string]any {
	if values, ok := r.values[s]; ok {
		return values
	}
	values := make(map[string]any, len(s.parameters))
	for _, p := range s.parameters {
		v := r.given(s, p.key, p.value.inferred)
		if v == nil {
			v = p.value.fallback.literal
		}
		if v == nil {
			r.tainted = true
			if s.parent == nil && !p.value.fallback.written() && p.value.kindName.literal != nil {
				r.faults.faultf(p.at, "the parameter `%s` has no default: give it a value with --set %s=…", p.key, p.key)
			}
			continue
		}
		values[p.key] = v
	}
	r.values[s] = values
	return values
}

// given is the value that a parameter was given from outside its file; nil when it was not.
func (r *resolver) given(s *scope, name string, k kind) any {
	if s.parent != nil {
		w, ok := s.with[name]
		switch {
		case !ok:
			return nil
		case w.expr != nil:
			v, _ := r.evaluate(s.parent, w)
			return v
		}
		return w.as(&collector{}, k) // its faults are told by the check
	}
	if i := slices.IndexFunc(r.doc.axes, func(a axis) bool { return a.name == name }); i >= 0 {
		return r.cell.values[i]
	}
	if v, ok := r.doc.set[name]; ok {
		return v
	}
	return r.cell.extra[name]
}

// global looks up what does not depend on the file.
func (d *Document) global(ref reference, c cell) (any, bool) {
	switch ref.root {
	case "matrix":
		i := slices.IndexFunc(d.axes, func(a axis) bool { return a.name == ref.segments[0] })
		if i >= 0 && c.values[i] != nil {
			return c.values[i], true
		}
	case "env":
		v, ok := d.files.bundle.Env[ref.segments[0]]
		return v, ok || !ref.presence
	}
	return nil, false
}

func (r *resolver) lookup(s *scope, ref reference) (any, bool) {
	switch ref.root {
	case "parameters":
		v, ok := r.parameters(s)[ref.segments[0]]
		return v, ok
	case "groups":
		i, ok := r.doc.groupIndex[ref.segments[0]]
		if !ok || i >= len(r.groups) {
			return nil, false
		}
		if len(ref.segments) == 1 {
			return true, true
		}
		return r.groups[i].field(ref.segments[1]), true
	}
	return r.doc.global(ref, r.cell)
}

// evaluate works out an expression; false when it can't be, which is a fault now or was one before.
func (r *resolver) evaluate(s *scope, v value) (any, bool) {
	lookup := func(ref reference) (any, bool) { return r.lookup(s, ref) }
	if v.expr.compiled == nil || r.cost > maxTotalCost || v.expr.compiled.lacks(lookup) {
		r.tainted = true
		return nil, false
	}
	result, cost, err := v.expr.compiled.eval(lookup)
	if r.cost += cost; r.cost > maxTotalCost {
		r.faults.faultf(v.expr.at, "the expressions of the pipeline cost more than %d together", maxTotalCost)
	}
	if err == nil {
		result, err = v.form.kind.fit(result)
	}
	if err == nil {
		err = v.form.accept(result)
	}
	if err != nil {
		r.tainted = true
		r.faults.faultf(v.expr.at, "%v", err)
		return nil, false
	}
	return result, true
}

// get works out a value of the type T, or gives the fallback when nothing was written.
func get[T any](r *resolver, s *scope, v value, fallback T) T {
	switch {
	case !v.written():
		return fallback
	case v.expr != nil:
		if result, ok := r.evaluate(s, v); ok {
			if t, ok := result.(T); ok {
				return t
			}
		}
		return fallback
	}
	t, ok := v.literal.(T)
	if !ok {
		r.tainted = true
		return fallback
	}
	return t
}

// optional is get for what may not be set.
func optional[T any](r *resolver, s *scope, v value) *T {
	if !v.written() {
		return nil
	}
	var zero T
	t := get(r, s, v, zero)
	return &t
}

// textMap works out entries with text values.
func (r *resolver) textMap(s *scope, entries []entry[value]) map[string]string {
	if len(entries) == 0 {
		return nil
	}
	m := make(map[string]string, len(entries))
	for _, e := range entries {
		m[e.key] = get(r, s, e.value, "")
	}
	return m
}

func (r *resolver) textList(s *scope, values []value) []string {
	var all []string
	for _, v := range values {
		all = append(all, get(r, s, v, ""))
	}
	return all
}

// resolveGroups works out the groups and holds their instances against the limits.
func (r *resolver) resolveGroups() {
	d := r.doc
	total := int64(0)
	groups := make([]Group, 0, len(d.groups))
	for _, g := range d.groups {
		out := r.resolveGroup(g)
		if out.Instances > maxInstances {
			r.faults.faultf(g.syntax.instances.at, "the group `%s` has %d instances, and a pipeline at most %d", g.name, out.Instances, maxInstances)
			r.tainted = true
			out.Instances = 0
		}
		total += int64(out.Instances)
		groups = append(groups, out)
	}
	r.groups = groups
	want := get(r, d.root, d.syntax.instances, int64(-1))
	switch {
	case r.tainted || len(groups) == 0:
	case total > maxInstances:
		r.faults.faultf(d.syntax.key("groups"), "the groups have %d instances together, and a pipeline at most %d", total, maxInstances)
	case total == 0:
		r.faults.faultf(d.syntax.key("groups"), "the groups have no instance together")
	case want >= 0 && total != want:
		r.faults.faultf(d.syntax.instances.at, "the groups add up to %d instances, not to %d", total, want)
	}
}

func (r *resolver) resolveGroup(g group) Group {
	s, root := g.syntax, r.doc.root
	r.tainted = r.tainted || !s.instances.written()
	out := Group{
		Name: g.name, Artifact: s.artifact.text, Region: s.region.text,
		Instances:  int(get(r, root, s.instances, int64(0))),
		CPU:        get(r, root, s.cpu, int64(0)),
		Memory:     get(r, root, s.memory, Size(0)),
		Role:       get(r, root, s.role, ""),
		Parameters: r.textMap(root, s.parameters),
		Outcome:    get(r, root, s.outcome, OutcomeReport),
		Args:       r.textList(root, s.args),
		Env:        r.textMap(root, s.env),
		Profiles:   r.textMap(root, s.profiles),
		Testground: get(r, root, s.testground, true),
	}
	for _, p := range s.ports {
		if out.Ports == nil {
			out.Ports = map[string]int{}
		}
		out.Ports[p.key] = int(get(r, root, p.value, int64(0)))
	}
	if out.Testground {
		r.checkTestground(s.parameters, out.Parameters, "the group `"+g.name+"`")
	}
	return out
}

// seed is where the random choices of the run come from.
func (d *Document) seed(out Resolved) uint64 {
	if d.files.bundle.Seed != nil {
		return *d.files.bundle.Seed
	}
	if d.syntax.seed != nil {
		return *d.syntax.seed
	}
	h := sha256.New()
	fmt.Fprintf(h, "groundplan seed\n%q\n", out.Name)
	for _, values := range []map[string]any{out.Parameters, out.Cell} {
		for _, name := range sortedKeys(values) {
			fmt.Fprintf(h, "%q=%q\n", name, textOf(values[name]))
		}
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}
