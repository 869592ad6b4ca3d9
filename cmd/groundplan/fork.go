package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/groundplan/groundplan/activities"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/explain"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/runid"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
)

// origin is the run that a fork goes on from.
type origin struct {
	record   runs.Record
	pipeline pipelines.Resolved
}

// fork starts a run with what an earlier one came to.
func (a *app) fork(ctx context.Context, files []string, o runOptions, placed bool) error {
	config, was, err := a.origin(&o, placed)
	if err != nil {
		return err
	}
	file, now, root, err := a.forked(&o, files, was)
	if err != nil {
		return err
	}
	plan, err := worker.PlanFork(was.record, was.pipeline, now, o.stage, worker.Kept)
	if err != nil {
		return usage(err)
	}
	if err := onNodes(o, now, plan); err != nil {
		return usage(err)
	}
	if o.dryRun {
		return a.explainFork(now, plan, *o.form)
	}
	id := o.id
	if id == "" {
		id = runid.New(now.Name, time.Now())
	}
	start := worker.StartOptions{
		Run: stage.Run{
			ID: id, Ground: o.on, Root: root, Commit: activities.Commit(ctx, root), From: was.record.ID, Context: o.context, Namespace: o.namespace,
		},
		Pipeline: now, Earlier: plan.Taken,
	}
	return a.carryOut(ctx, config, start, file, o)
}

// origin finds the run that --from names. A fork stays on its ground: what was built and measured there is of no use
// elsewhere.
func (a *app) origin(o *runOptions, placed bool) (worker.Config, origin, error) {
	config, folder, err := a.local(o.from)
	if err != nil {
		return config, origin{}, err
	}
	var was origin
	if was.record, err = folder.ReadRecord(); errors.Is(err, runs.ErrNoRecord) {
		return config, was, usage(fmt.Errorf("--from %s: that run has no record yet", o.from))
	}
	if err != nil {
		return config, was, err
	}
	if was.pipeline, err = folder.ReadPipeline(); err != nil {
		return config, was, fmt.Errorf("reading the pipeline of run %s: %w", was.record.ID, err)
	}
	if placed && o.on != was.record.Ground {
		return config, was, usage(fmt.Errorf("--on %s: run %s was on %s, and what it came to is of use there only", o.on, was.record.ID, was.record.Ground))
	}
	o.on = was.record.Ground
	if err := o.check(); err != nil {
		return config, was, err
	}
	config, err = a.configFor(o)
	return config, was, err
}

// forked is the pipeline of a fork: that of the earlier run, with what was said anew.
func (a *app) forked(o *runOptions, files []string, was origin) (file string, now pipelines.Resolved, root string, err error) {
	own := filepath.Join(was.record.Root, filepath.FromSlash(was.record.File))
	switch {
	case len(files) > 0:
		file = files[0]
	case was.record.Root == "" || was.record.File == "":
		return "", now, "", usage(fmt.Errorf("run %s doesn't say where its pipeline is: name the file", was.record.ID))
	case len(o.set) == 0 && o.seed == "":
		return own, was.pipeline, was.record.Root, nil // as it was, whatever has become of the file
	default:
		file = own
	}
	o.earlier = &was.pipeline
	if len(files) == 0 {
		a.tellChanged(*o, file, was)
	}
	doc, err := o.load(file)
	if err != nil {
		return file, now, "", err
	}
	a.tellLost(o.lost)
	if now, err = o.cell(doc, was); err != nil {
		return file, now, "", err
	}
	root, err = rootOf(file, doc)
	return file, now, root, err
}

// cell resolves the cell that the earlier run was of, with what --set says of its axes.
func (o *runOptions) cell(doc *pipelines.Document, was origin) (pipelines.Resolved, error) {
	cells := doc.Cells()
	switch {
	case cells[0] == nil && was.record.Cell == nil:
		return resolvedCell(doc, nil)
	case cells[0] == nil:
		return pipelines.Resolved{}, usage(fmt.Errorf("run %s was a cell of a matrix, which the pipeline doesn't have any more", was.record.ID))
	case was.record.Cell == nil:
		return pipelines.Resolved{}, usage(fmt.Errorf("the pipeline has a matrix of %d cells, and run %s was none of them", len(cells), was.record.ID))
	}
	cell := maps.Clone(was.pipeline.Cell)
	set, err := o.options()
	if err != nil {
		return pipelines.Resolved{}, err
	}
	for name := range set.Set {
		if value, axis := cells[0][name]; axis {
			cell[name] = value // pinned: it is the same in all cells
		}
	}
	return resolvedCell(doc, cell)
}

func resolvedCell(doc *pipelines.Document, cell map[string]any) (pipelines.Resolved, error) {
	r, err := doc.Resolve(cell)
	if err != nil {
		return r, usage(err)
	}
	return r, nil
}

// tellChanged says when a file is not any more what the earlier run was made of.
func (a *app) tellChanged(o runOptions, file string, was origin) {
	o.set, o.seed = nil, ""
	doc, err := o.load(file)
	if err != nil {
		return // the fork's own reading says what is wrong
	}
	if r, err := o.cell(doc, was); err == nil && r.Digest != was.pipeline.Digest {
		a.tell("%s is not what run %s was made of any more: it is taken as it is now", file, was.record.ID)
	}
}

// onNodes refuses what nodes of a cluster can't do: instances begin there with empty folders, and what is gathered from
// them takes the place of what was taken over.
func onNodes(o runOptions, now pipelines.Resolved, plan worker.Fork) error {
	if o.on != groundKubernetes {
		return nil
	}
	kinds := map[string]pipelines.Kind{}
	for _, s := range now.Stages {
		kinds[s.Name] = s.Kind
	}
	for _, s := range plan.Runs {
		for _, r := range plan.Taken {
			if kinds[s.Stage] == pipelines.KindRun && r.Kind == pipelines.KindRun {
				return fmt.Errorf("on kubernetes instances begin with empty folders, so that what they wrote in %s can't be taken over where %s is run: begin with --stage %s, or with a stage behind the last run stage", r.Stage, s.Stage, r.Stage)
			}
		}
	}
	return nil
}

// explainFork shows what would be taken over and what would be done.
func (a *app) explainFork(now pipelines.Resolved, plan worker.Fork, form string) error {
	if form == "json" {
		return a.json(struct {
			pipelines.Resolved
			Fork worker.Fork `json:"fork"`
		}{now, plan})
	}
	var taken [][2]string
	for _, r := range plan.Taken {
		taken = append(taken, [2]string{r.Stage, string(r.Verdict)})
	}
	var begun [][2]string
	for _, s := range plan.Runs {
		begun = append(begun, [2]string{s.Stage, s.Why})
	}
	_, err := fmt.Fprint(a.out, explain.Fork(a.out, plan.From, taken, begun)+explain.Text(a.out, now, nil, 0))
	return err
}
