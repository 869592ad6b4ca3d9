package activities

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/groundplan/groundplan/activities/elasticsearch"
	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Collect gathers the outputs, computes the metrics, checks the assertions and compares; at last it pushes to Elasticsearch,
// where it is asked to. Whatever its verdict, what it gathered stays.
func (a *Activities) Collect(ctx context.Context, in stage.Input) (stage.Result, error) {
	ground, why := a.ground(in.Run)
	return a.attempt(ctx, in, func(ctx context.Context, report func(stage.Progress)) (stage.Result, error) {
		if why != "" {
			return invalid("%s", why), nil
		}
		if err := ground.Gather(ctx, in, report); err != nil {
			return stage.Result{}, err
		}
		return a.collect(ctx, in, report)
	}, nil)
}

// collect works on what has been gathered.
func (a *Activities) collect(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	folder := a.folder(in.Run)
	found, err := a.metrics(ctx, folder, in, report)
	if err != nil {
		return stage.Result{}, err
	}
	known, err := variables(folder, in.Groups, in.Stages, found.Metrics)
	if err != nil {
		return stage.Result{}, err
	}
	result := stage.Result{Verdict: stage.Passed}
	if found.BadLines > 0 {
		result.Notes = append(result.Notes, badLines(found))
	}
	note, regressed, err := a.compare(ctx, in, found)
	if err != nil {
		return stage.Result{}, err
	}
	if note != "" {
		result.Notes = append(result.Notes, note)
	}
	result.Assertions, result.Regressed = assertions(in, known), regressed[:min(len(regressed), mostRegressed)]
	exported, err := a.export(ctx, in, found, report)
	if err != nil {
		return stage.Result{}, err
	}
	result.Notes = append(result.Notes, exported.Notes...)
	worse := regressedReason(regressed)
	broken := brokenReason(result.Assertions)
	unpushed, notes, err := a.push(ctx, in, folder, report)
	if err != nil {
		return stage.Result{}, err
	}
	result.Notes = append(result.Notes, notes...)
	unsent := joinReasons(exported.Unsent, unpushed)
	switch {
	case broken != "" || worse != "":
		result.Verdict, result.Reason = stage.Failed, joinReasons(broken, worse, unsent)
	case unsent != "":
		result.Verdict, result.Reason = stage.Invalid, unsent
	}
	return result, nil
}

// metrics computes the metrics and keeps them in the run's folder, where the record finds them.
func (a *Activities) metrics(ctx context.Context, folder runs.Folder, in stage.Input, report func(stage.Progress)) (metrics.Report, error) {
	total := 0
	for _, g := range in.Groups {
		total += g.Instances
	}
	times, err := Times(folder, in.Stages)
	if err != nil {
		return metrics.Report{}, err
	}
	found, err := metrics.Summarise(ctx, folder, in.Groups, times, func(done int) {
		report(stage.Progress{Total: total, Succeeded: done, Note: "computing metrics"})
	})
	if err != nil {
		return found, err
	}
	if err := runs.WriteJSON(folder.Metrics(), found.Metrics); err != nil {
		return found, fmt.Errorf("keeping the metrics: %w", err)
	}
	if err := runs.WriteJSON(folder.Samples(), found.Samples); err != nil {
		return found, fmt.Errorf("keeping what single instances measured: %w", err)
	}
	return found, nil
}

// variables is what `assert` and `when` see of a run: how its stages and instances ended, and its metrics.
func variables(folder runs.Folder, groups []pipelines.Group, stages []stage.Result, metrics map[string]pipelines.Summary) (pipelines.Variables, error) {
	v := pipelines.Variables{Stages: map[string]string{}, Metrics: metrics, Outcomes: map[string]pipelines.Outcomes{}}
	for _, result := range stages {
		v.Stages[result.Stage] = string(result.Verdict)
	}
	sums, err := figures(folder, groups, stages)
	if err != nil {
		return v, err
	}
	for _, g := range groups {
		v.Outcomes[g.Name] = sums[g.Name].Outcomes
	}
	return v, nil
}

// assertions works out every assertion. One that can't be worked out, because nobody measured what it asks for, has not
// held.
func assertions(in stage.Input, v pipelines.Variables) []stage.Assertion {
	var list []stage.Assertion
	for _, asked := range in.Stage.Collect.Assert {
		holds, explanation, err := pipelines.Evaluate(asked.Expr, pipelines.Inputs{
			Parameters: in.Parameters, Cell: in.Cell, Env: in.Env, Groups: in.Groups,
		}, v)
		if err != nil {
			holds, explanation = false, strings.TrimPrefix(err.Error(), "evaluating `"+asked.Expr+"`: ")
		}
		list = append(list, stage.Assertion{Expr: asked.Expr, Position: asked.Position, Held: holds, Explanation: explanation})
	}
	return list
}

// brokenReason names every assertion that did not hold, with its values.
func brokenReason(list []stage.Assertion) string {
	var broken []string
	for _, a := range list {
		if a.Held {
			continue
		}
		text := "`" + a.Expr + "`"
		if a.Explanation != "" {
			text += " (" + a.Explanation + ")"
		}
		broken = append(broken, text)
	}
	switch {
	case len(broken) == 0:
		return ""
	case len(list) == 1:
		return "the assertion did not hold: " + broken[0]
	}
	return fmt.Sprintf("%d of %d assertions did not hold: %s", len(broken), len(list), strings.Join(broken, "; "))
}

// push brings logs, events, results and metrics to Elasticsearch, where the stage asks for it. The reason says why not
// everything is there.
func (a *Activities) push(ctx context.Context, in stage.Input, folder runs.Folder, report func(stage.Progress)) (reason string, notes []string, err error) {
	asked := in.Stage.Collect.Elasticsearch
	if asked == nil {
		return "", nil, nil
	}
	if a.Elasticsearch.URL == "" {
		return fmt.Sprintf("logs are to be pushed to the Elasticsearch index %s, but no address is configured: give --elasticsearch URL or set GROUNDPLAN_ELASTICSEARCH; the outputs are in %s",
			asked.Index, filepath.Join(string(folder), "outputs")), nil, nil
	}
	order := elasticsearch.Order{Folder: folder, Index: asked.Index, Input: in}
	out, err := a.Elasticsearch.Push(ctx, order, func(note string) { report(stage.Progress{Note: note}) })
	return out.Reason, out.Notes, err
}

// badLines is the note on lines of results.out that are no metrics.
func badLines(found metrics.Report) string {
	if found.BadLines == 1 {
		return fmt.Sprintf("1 line of results.out is not a metric: %s", found.BadLine)
	}
	return fmt.Sprintf("%d lines of results.out are not metrics; the first: %s", found.BadLines, found.BadLine)
}

func joinReasons(reasons ...string) string {
	var given []string
	for _, reason := range reasons {
		if reason != "" {
			given = append(given, reason)
		}
	}
	return strings.Join(given, "; ")
}
