// Package explain writes down for a person what a pipeline will do before it does it: its stages, what they need, who
// takes part, what the network will be, and when events happen.
package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/pipelines"
)

// Text explains one resolved pipeline. cells and maxParallel are those of its matrix, nil and 0 without one; r is then
// the first cell's.
func Text(t *terminal.Terminal, r pipelines.Resolved, cells []map[string]any, maxParallel int) string {
	e := &explainer{term: t, r: r}
	e.heading(cells, maxParallel)
	e.groups()
	e.stages()
	e.network()
	e.events()
	e.needs(len(cells), maxParallel)
	return e.b.String()
}

type explainer struct {
	term *terminal.Terminal
	r    pipelines.Resolved
	b    strings.Builder
}

func (e *explainer) title(text string) {
	fmt.Fprintf(&e.b, "\n%s\n", e.term.Paint(terminal.Bold, text))
}

func (e *explainer) fact(name, value string) {
	if value != "" {
		fmt.Fprintf(&e.b, "  %s%s\n", e.term.Paint(terminal.Dim, terminal.Pad(name, 12)), value)
	}
}

func (e *explainer) heading(cells []map[string]any, maxParallel int) {
	fmt.Fprintf(&e.b, "%s\n", e.term.Paint(terminal.Bold, e.r.Name))
	if e.r.Description != "" {
		fmt.Fprintf(&e.b, "  %s\n", terminal.Clean(e.r.Description))
	}
	e.fact("file", e.r.File)
	e.fact("digest", short(e.r.Digest))
	e.fact("seed", fmt.Sprint(e.r.Seed))
	e.fact("parameters", report.Values(e.r.Parameters))
	if len(cells) == 0 {
		return
	}
	e.fact("matrix", fmt.Sprintf("%d cells, at most %d at once; below is the first: %s", len(cells), maxParallel, report.Values(e.r.Cell)))
}

func short(digest string) string { return digest[:min(len(digest), 16)] }

func (e *explainer) groups() {
	e.title("Groups")
	dim := func(s string) terminal.Cell { return terminal.Cell{Text: s, Style: terminal.Dim} }
	right := func(s string, style terminal.Style) terminal.Cell {
		return terminal.Cell{Text: s, Style: style, Right: true}
	}
	rows := [][]terminal.Cell{{dim("GROUP"), right("INSTANCES", terminal.Dim), dim("ARTIFACT"), dim("REGION"), right("MEMORY", terminal.Dim), right("CPU", terminal.Dim), dim("OUTCOME")}}
	for _, g := range e.r.Groups {
		memory, cpu := "", ""
		if g.Memory > 0 {
			memory = report.Bytes(float64(g.Memory))
		}
		if g.CPU > 0 {
			cpu = fmt.Sprintf("%dm", g.CPU)
		}
		rows = append(rows, []terminal.Cell{
			terminal.Text(g.Name), right(fmt.Sprint(g.Instances), terminal.Plain), terminal.Text(g.Artifact), terminal.Text(g.Region),
			right(memory, terminal.Plain), right(cpu, terminal.Plain), terminal.Text(g.Outcome),
		})
	}
	e.b.WriteString(e.term.Table(rows))
}

func (e *explainer) stages() {
	e.title("Stages")
	rows := draw(e.r.Stages)
	graph, name, kind := 0, 0, len("schedule")
	for _, row := range rows {
		graph = max(graph, terminal.Width(row.graph))
		if row.stage != nil {
			name = max(name, len(row.stage.Name))
		}
	}
	for _, row := range rows {
		line := "  " + terminal.Pad(row.graph, graph)
		if s := row.stage; s != nil {
			text := "  " + terminal.Pad(s.Name, name)
			line += e.term.Paint(terminal.Bold, text) + "  " + terminal.Pad(string(s.Kind), kind) + "  " + e.term.Paint(terminal.Dim, e.what(*s))
		}
		fmt.Fprintln(&e.b, strings.TrimRight(line, " "))
	}
}

// what says in one line what a stage does and under which conditions.
func (e *explainer) what(s pipelines.Stage) string {
	var parts []string
	switch s.Kind {
	case pipelines.KindBuild:
		parts = append(parts, sources(s.Build))
	case pipelines.KindSchedule:
		parts = append(parts, e.count(s.Schedule.Groups))
	case pipelines.KindNetwork:
		parts = append(parts, "sets "+shape(s.Network.Default), plural(len(s.Network.Links), "link"))
	case pipelines.KindRun:
		parts = append(parts, "case "+s.Run.Case, e.count(s.Run.Groups), success(s.Run.Success), plural(len(s.Run.Events), "event"))
	case pipelines.KindCollect:
		parts = append(parts, plural(len(s.Collect.Assert), "assertion"), pushes(s.Collect))
	}
	parts = append(parts, conditions(s)...)
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), " · ")
}

func conditions(s pipelines.Stage) []string {
	var parts []string
	if s.When != "" {
		parts = append(parts, "when "+s.When)
	}
	if s.Timeout > 0 && s.Timeout != pipelines.DefaultTimeout {
		parts = append(parts, "at most "+s.Timeout.String())
	}
	if s.Retry.Attempts > 1 {
		parts = append(parts, fmt.Sprintf("%d attempts", s.Retry.Attempts))
	}
	if s.OnFailure != "" && s.OnFailure != pipelines.OnFailureAbort {
		parts = append(parts, "on failure "+s.OnFailure)
	}
	return parts
}

// count is how many instances the groups have together.
func (e *explainer) count(groups []string) string {
	n := 0
	for _, name := range groups {
		if g, ok := e.r.Group(name); ok {
			n += g.Instances
		}
	}
	text := fmt.Sprintf("%d instances", n)
	if n == 1 {
		text = "1 instance"
	}
	if len(groups) < len(e.r.Groups) {
		text += " of " + strings.Join(groups, ", ")
	}
	return text
}

func success(share pipelines.Share) string {
	if share >= 1 {
		return ""
	}
	return share.String() + " must succeed"
}

func pushes(c *pipelines.Collect) string {
	if c.Elasticsearch == nil {
		return ""
	}
	return "pushes to Elasticsearch index " + c.Elasticsearch.Index
}

func plural(n int, what string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func sources(build map[string]pipelines.Source) string {
	var parts []string
	for _, name := range keys(build) {
		parts = append(parts, name+" from "+source(build[name]))
	}
	return strings.Join(parts, ", ")
}

func source(s pipelines.Source) string {
	switch {
	case s.Go != nil:
		text := "go " + s.Go.Package + " in " + s.Go.Module
		for _, module := range keys(s.Go.Replace) {
			text += ", " + module + " replaced by " + s.Go.Replace[module]
		}
		for _, module := range keys(s.Go.Require) {
			text += ", " + module + " at " + s.Go.Require[module]
		}
		return text
	case s.Executable != nil:
		return "file " + s.Executable.Path
	case s.Image != nil:
		return "image " + s.Image.Ref
	case s.Dockerfile != nil:
		return "Dockerfile in " + s.Dockerfile.Context
	case s.NPM != nil:
		return "npm in " + s.NPM.Dir
	}
	return "nothing"
}

func keys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names
}
