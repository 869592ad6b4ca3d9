package report

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
)

// origin is how the run was made, and how to make it again.
type origin struct {
	// Command makes the same run again; empty where nobody knows the file.
	Command    string
	Facts      []fact
	Parameters []fact
	Versions   []fact
}

func (m *material) origin() *origin {
	r := m.record
	o := &origin{Command: m.again()}
	add := func(name, text string) {
		if text != "" {
			o.Facts = append(o.Facts, fact{Name: name, Text: clean(text, shownRunes)})
		}
	}
	add("Pipeline", strings.TrimSpace(r.Pipeline+" "+inBrackets(r.File)))
	add("Commit", r.Commit)
	add("Digest", r.Digest)
	if r.Seed != 0 {
		add("Seed", strconv.FormatUint(r.Seed, 10))
	}
	add("Ground", r.Ground)
	add("Cell", values(r.Cell))
	add("Run", m.id)
	for _, name := range sorted(r.Parameters) {
		o.Parameters = append(o.Parameters, fact{Name: clean(name, 80), Text: clean(fmt.Sprint(r.Parameters[name]), shownRunes)})
	}
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		o.Versions = append(o.Versions, fact{Name: clean(name, 40), Text: clean(r.Versions[name], 120)})
	}
	if len(o.Facts) == 1 && len(o.Parameters)+len(o.Versions) == 0 {
		return nil
	}
	return o
}

func inBrackets(text string) string {
	if text == "" {
		return ""
	}
	return "(" + text + ")"
}

// again is the command line of the same run. A cell of a matrix is only ever made with all of it.
func (m *material) again() string {
	r := m.record
	if r.File == "" {
		return ""
	}
	words := []string{"groundplan", "run", quote(r.File)}
	if r.Ground != "" && r.Ground != "local" {
		words = append(words, "--on", quote(r.Ground))
	}
	if r.Seed != 0 {
		words = append(words, "--seed", strconv.FormatUint(r.Seed, 10))
	}
	for _, name := range sorted(pipelines.Values(r.Parameters)) {
		words = append(words, "--set", quote(fmt.Sprintf("%s=%v", name, r.Parameters[name])))
	}
	return clean(strings.Join(words, " "), 4*shownRunes)
}

// quote makes one word of a text, for a shell.
func quote(text string) string {
	safe := strings.IndexFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/=:,+%@", r))
	}) < 0
	if safe && text != "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
