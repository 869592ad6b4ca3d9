package testground

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/pipelines/testground/internal/toml"
)

// report collects rows. A key that is asked about again, by another group or case, has its row already.
type report struct {
	rows []Row
	seen map[Row]bool
}

func (r *report) add(row Row) {
	if r.seen == nil {
		r.seen = map[Row]bool{}
	}
	if !r.seen[row] {
		r.seen[row] = true
		r.rows = append(r.rows, row)
	}
}

// sorted is the report in the order of the files, the given one first. A key that one group has no use for and another
// one has is not needless.
func (r *report) sorted(first string) []Row {
	type place struct{ file, key string }
	used := map[place]bool{}
	for _, row := range r.rows {
		if row.State != Needless {
			used[place{row.File, row.Key}] = true
		}
	}
	rows := slices.DeleteFunc(slices.Clone(r.rows), func(row Row) bool {
		return row.State == Needless && used[place{row.File, row.Key}]
	})
	slices.SortStableFunc(rows, func(a, b Row) int {
		if a.File != b.File {
			if a.File == first {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Line, b.Line)
	})
	return rows
}

// section is a table that is being read. What nobody has read when it is done is unknown.
type section struct {
	im    *importer
	file  string
	path  string
	table *toml.Table
	read  map[string]bool
}

func (im *importer) section(file, path string, t *toml.Table) *section {
	return &section{im: im, file: file, path: path, table: t, read: map[string]bool{}}
}

// parse reads a file; nil when it can't be.
func (im *importer) parse(file string, data []byte) *section {
	if len(data) > maxFileBytes {
		im.fault(file, 0, "has more than %d bytes", maxFileBytes)
		return nil
	}
	t, err := toml.Parse(string(data))
	if err != nil {
		var wrong *toml.Error
		errors.As(err, &wrong)
		im.fault(file, wrong.Line, "column %d: %s", wrong.Column, wrong.Message)
		return nil
	}
	return im.section(file, "", t)
}

// maxFileBytes bounds a file. The reader's time grows with the square of the number of keys: at this size it stays around a
// second, and the largest composition that Testground ships is a hundredth of it.
const maxFileBytes = 256 << 10

func (s *section) name(key string) string {
	if strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		key = `"` + key + `"`
	}
	if s.path == "" {
		return key
	}
	return s.path + "." + key
}

// value returns a key's value if it is of one of the kinds.
func (s *section) value(key string, kinds ...toml.Kind) *toml.Value {
	if s == nil {
		return nil
	}
	v := s.table.Get(key)
	if v == nil {
		return nil
	}
	s.read[key] = true
	if !slices.Contains(kinds, v.Kind) {
		s.im.fault(s.file, v.Line, "`%s` must be %s, and is %s", s.name(key), kinds[0], v.Kind)
		return nil
	}
	return v
}

// row notes what became of a key, if it is there.
func (s *section) row(key string, state State, format string, args ...any) {
	if v := s.table.Get(key); v != nil {
		s.im.report.add(Row{s.file, v.Line, s.name(key), state, fmt.Sprintf(format, args...)})
	}
}

func (s *section) text(key string) string {
	if v := s.value(key, toml.String); v != nil {
		return v.Text
	}
	return ""
}

func (s *section) count(key string) int {
	v := s.value(key, toml.Integer)
	if v == nil {
		return 0
	}
	if v.Int < 0 || v.Int > maxInstances {
		s.im.fault(s.file, v.Line, "`%s` is %d: it goes from 0 to %d", s.name(key), v.Int, maxInstances)
		return 0
	}
	return int(v.Int)
}

// bound is an upper bound on a number of instances: one that a pipeline can't reach is none.
func (s *section) bound(key string) int {
	if v := s.table.Get(key); v != nil && v.Kind == toml.Integer && v.Int > maxInstances {
		s.read[key] = true
		s.row(key, Changed, "a pipeline has at most %d instances", maxInstances)
		return maxInstances
	}
	return s.count(key)
}

// maxInstances is how many a pipeline can have.
const maxInstances = 100_000

func (s *section) number(key string) float64 {
	v := s.value(key, toml.Float, toml.Integer)
	if v == nil {
		return 0
	}
	if v.Kind == toml.Integer {
		return float64(v.Int)
	}
	return v.Float
}

func (s *section) texts(key string) []string {
	v := s.value(key, toml.Array)
	if v == nil {
		return nil
	}
	var all []string
	for _, e := range v.List {
		if e.Kind != toml.String {
			s.im.fault(s.file, e.Line, "`%s` must hold texts, and holds %s", s.name(key), e.Kind)
			continue
		}
		all = append(all, e.Text)
	}
	return all
}

// choice is a list of texts, numbers or booleans, as a person would write it; empty when it is something else.
func (s *section) choice(key string) string {
	v := s.table.Get(key)
	if v == nil || v.Kind != toml.Array {
		return ""
	}
	var all []string
	for _, e := range v.List {
		if e.Kind == toml.Array || e.Kind == toml.TableKind {
			return ""
		}
		all = append(all, e.Text)
	}
	s.read[key] = true
	return strings.Join(all, ", ")
}

// sub is the table under a key; nil when there is none.
func (s *section) sub(key string) *section {
	if v := s.value(key, toml.TableKind); v != nil {
		return s.im.section(s.file, s.name(key), v.Table)
	}
	return nil
}

// subs are the tables in an array.
func (s *section) subs(key string) []*section {
	v := s.value(key, toml.Array)
	if v == nil {
		return nil
	}
	var all []*section
	for i, e := range v.List {
		if e.Kind != toml.TableKind {
			s.im.fault(s.file, e.Line, "`%s` must hold tables, and holds %s", s.name(key), e.Kind)
			continue
		}
		all = append(all, s.im.section(s.file, fmt.Sprintf("%s[%d]", s.name(key), i), e.Table))
	}
	return all
}

// pairs is a table of texts; numbers and booleans are taken as they are written, where Testground crashes.
func (s *section) pairs(key string) map[string]string {
	sub := s.sub(key)
	if sub == nil {
		return nil
	}
	all := map[string]string{}
	for _, e := range sub.table.Entries {
		switch e.Value.Kind {
		case toml.String:
			all[e.Key] = e.Value.Text
		case toml.Integer, toml.Float, toml.Boolean, toml.Time:
			all[e.Key] = e.Value.Text
			s.im.report.add(Row{s.file, e.Value.Line, sub.name(e.Key), Changed, "written as text, which Testground asks for"})
		default:
			s.im.fault(s.file, e.Value.Line, "`%s` must be a text, and is %s", sub.name(e.Key), e.Value.Kind)
		}
	}
	return all
}

// done names the keys that nobody has read.
func (s *section) done() {
	if s == nil {
		return
	}
	for _, e := range s.table.Entries {
		if !s.read[e.Key] {
			s.im.report.add(Row{s.file, e.Value.Line, s.name(e.Key), Unknown, "Testground doesn't know this key; left out"})
		}
	}
}

// line is where the table stands.
func (s *section) line() int { return s.table.Line }
