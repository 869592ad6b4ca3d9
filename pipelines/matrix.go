package pipelines

import (
	"fmt"
	"slices"
	"strings"
)

const (
	maxCells = 10_000
	maxAxis  = 1000 // values of one axis, and of an enum
	// maxRowWork bounds cells times rows of exclude and include.
	maxRowWork = 500_000
)

// axis is a dimension of the matrix with its typed values.
type axis struct {
	name   string
	kind   kind
	values []any
	at     place
}

// cell is one combination: the values of the axes in order, and of further parameters.
type cell struct {
	values []any
	extra  map[string]any
}

// plain gives the cell as its run sees it.
func (c cell) plain(axes []axis) map[string]any {
	if len(axes) == 0 {
		return nil
	}
	m := make(map[string]any, len(axes)+len(c.extra))
	for i, a := range axes {
		m[a.name] = plain(c.values[i])
	}
	for name, v := range c.extra {
		m[name] = plain(v)
	}
	return m
}

// describe names the cell in messages.
func (c cell) describe(axes []axis) string {
	var parts []string
	for i, a := range axes {
		parts = append(parts, fmt.Sprintf("%s=%s", a.name, textOf(c.values[i])))
	}
	return strings.Join(parts, ", ")
}

// readMatrix settles the type and the values of each axis.
func (d *Document) readMatrix() {
	m := d.syntax.matrix
	if m == nil {
		return
	}
	faults := d.files.faults
	if len(m.axes) == 0 && m.has("axes") {
		faults.faultf(m.key("axes"), "the matrix has no axis")
	}
	for _, e := range m.axes {
		a := axis{name: e.key, at: e.at}
		p, isParameter := d.root.parameter(e.key)
		if isParameter {
			a.kind = p.inferred
		} else if len(e.value) > 0 {
			if t, ok := e.value[0].literal.(typed); ok {
				a.kind = t.kind
			}
		}
		switch {
		case len(e.value) == 0:
			faults.faultf(e.at, "the axis `%s` has no values", e.key)
		case len(e.value) > maxAxis:
			faults.faultf(e.at, "the axis `%s` has %d values, more than the limit of %d", e.key, len(e.value), maxAxis)
			continue
		}
		for _, v := range e.value {
			literal := v.as(faults, a.kind)
			if literal == nil {
				continue
			}
			if isParameter {
				if err := p.allows(literal); err != nil {
					faults.faultf(v.at, "%v", err)
				}
			}
			if slices.Contains(a.values, literal) {
				faults.faultf(v.at, "the value `%s` stands in the axis twice", clip(textOf(literal)))
				continue
			}
			a.values = append(a.values, literal)
		}
		if v, pinned := d.set[e.key]; pinned {
			a.values = []any{v} // --set runs the one value
		}
		d.axes = append(d.axes, a)
		d.axisKinds[a.name] = a.kind
	}
}

// readCells makes the combinations, leaves out what is excluded and adds what is included.
func (d *Document) readCells() {
	m := d.syntax.matrix
	if m == nil {
		d.cells = []cell{{}}
		return
	}
	faults := d.files.faults
	count := 1
	for _, a := range d.axes {
		if count *= len(a.values); count > maxCells {
			faults.faultf(m.key("axes"), "the matrix has more than %d cells", maxCells)
			return
		}
	}
	if rows := len(m.exclude) + len(m.include); count*rows > maxRowWork {
		faults.faultf(m.place, "%d cells with %d rows of exclude and include are too many", count, rows)
		return
	}
	var all []cell
	for i := range count {
		c := cell{values: make([]any, len(d.axes))}
		for j := len(d.axes) - 1; j >= 0; j-- {
			n := len(d.axes[j].values)
			c.values[j] = d.axes[j].values[i%n]
			i /= n
		}
		all = append(all, c)
	}
	all = d.exclude(all, m)
	for _, row := range m.include {
		all = d.includeRow(all, row)
	}
	if len(all) > maxCells {
		faults.faultf(m.key("include"), "the matrix has more than %d cells", maxCells)
		return
	}
	if len(all) == 0 && len(faults.faults) == 0 {
		faults.faultf(m.place, "the matrix has no cell left: everything is excluded")
	}
	d.cells = all
}

// row reads the values of a row; those of axes, by position, and those of further parameters.
func (d *Document) row(row []entry[value], extras bool) (values []any, extra map[string]any, ok bool) {
	values, extra, ok = make([]any, len(d.axes)), map[string]any{}, true
	for _, e := range row {
		i := slices.IndexFunc(d.axes, func(a axis) bool { return a.name == e.key })
		p, isParameter := d.root.parameter(e.key)
		switch {
		case i >= 0:
			values[i] = e.value.as(d.files.faults, d.axes[i].kind)
			ok = ok && values[i] != nil
		case extras && isParameter:
			v := e.value.as(d.files.faults, p.inferred)
			if v != nil {
				if err := p.allows(v); err != nil {
					d.files.faults.faultf(e.value.at, "%v", err)
				}
			}
			extra[e.key] = v
			ok = ok && v != nil
		default:
			candidates := d.axisNames()
			if extras {
				candidates = append(candidates, keysOf(d.root.parameters)...)
			}
			u := unknown("axis", e.key, candidates)
			d.files.faults.suggestf(e.at, u.suggestion, "%s", u.message)
			ok = false
		}
	}
	return values, extra, ok
}

// matches says whether a cell has all the values of a row.
func (c cell) matches(row []any) bool {
	for i, v := range row {
		if v != nil && v != c.values[i] {
			return false
		}
	}
	return true
}

func (d *Document) exclude(all []cell, m *matrixSyntax) []cell {
	for _, x := range m.exclude {
		matches := func(c cell) bool { return d.excludes(x.when, c) }
		if x.when == nil {
			row, _, ok := d.row(x.row, false)
			if !ok || len(x.row) == 0 {
				continue
			}
			matches = func(c cell) bool { return c.matches(row) }
		}
		all = slices.DeleteFunc(all, matches)
	}
	return all
}

// excludes works out an expression of `exclude` for a cell.
func (d *Document) excludes(e *expression, c cell) bool {
	if e == nil || e.compiled == nil {
		return false
	}
	v, _, err := e.compiled.eval(func(r reference) (any, bool) { return d.global(r, c) })
	if err != nil {
		d.files.faults.faultf(e.at, "for the cell %s: %v", c.describe(d.axes), err)
	}
	return v == true
}

// includeRow adds a row: as a further cell when it names every axis (and is none yet), else to the cells that it matches.
func (d *Document) includeRow(all []cell, row []entry[value]) []cell {
	values, extra, ok := d.row(row, true)
	if !ok || len(row) == 0 {
		return all
	}
	for i, v := range values {
		if _, pinned := d.set[d.axes[i].name]; pinned && v != nil && v != d.axes[i].values[0] {
			return all // --set runs another value
		}
	}
	matched := false
	for i := range all {
		if all[i].matches(values) {
			matched = true
			merged := map[string]any{}
			for _, m := range []map[string]any{all[i].extra, extra} {
				for k, v := range m {
					merged[k] = v
				}
			}
			all[i].extra = merged
		}
	}
	if !matched && !slices.Contains(values, nil) {
		return append(all, cell{values: values, extra: extra})
	}
	if !matched {
		d.files.faults.faultf(row[0].at, "the row matches no combination, and names too few axes to be one of its own")
	}
	return all
}

// cellOf finds the typed cell that a plain one stands for.
func (d *Document) cellOf(values map[string]any) (cell, error) {
	if len(d.axes) == 0 {
		if len(values) > 0 {
			return cell{}, fmt.Errorf("the pipeline %s has no matrix, but a cell is given", d.Name())
		}
		return cell{}, nil
	}
	c := cell{values: make([]any, len(d.axes)), extra: map[string]any{}}
	for i, a := range d.axes {
		given, ok := values[a.name]
		if !ok {
			return cell{}, fmt.Errorf("the cell has no value for the axis %s", a.name)
		}
		v, err := a.kind.parsePlain(given)
		if err != nil {
			return cell{}, fmt.Errorf("the cell's %s: %w", a.name, err)
		}
		c.values[i] = v
	}
	for _, name := range sortedKeys(values) {
		if _, isAxis := d.axisKinds[name]; isAxis {
			continue
		}
		p, ok := d.root.parameter(name)
		if !ok {
			return cell{}, fmt.Errorf("the cell names %s, which is neither an axis nor a parameter", name)
		}
		v, err := p.inferred.parsePlain(values[name])
		if err != nil {
			return cell{}, fmt.Errorf("the cell's %s: %w", name, err)
		}
		c.extra[name] = v
	}
	return c, nil
}
