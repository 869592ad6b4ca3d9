package activities

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"go.temporal.io/sdk/temporal"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// TypeBadPipeline is the type of the application error for a pipeline or expression that can't be worked out. Trying
// again changes nothing.
const TypeBadPipeline = "BadPipeline"

// Resolve resolves one matrix cell.
func (a *Activities) Resolve(_ context.Context, in stage.Resolve) (pipelines.Resolved, error) {
	document, err := pipelines.Open(in.Bundle)
	if err != nil {
		return pipelines.Resolved{}, badPipeline(fmt.Errorf("reading %s: %w", in.Bundle.File, err))
	}
	resolved, err := document.Resolve(in.Cell)
	if err != nil {
		return pipelines.Resolved{}, badPipeline(fmt.Errorf("resolving %s: %w", in.Bundle.File, err))
	}
	return resolved, nil
}

// badPipeline marks an error as final.
func badPipeline(err error) error {
	return temporal.NewNonRetryableApplicationError(err.Error(), TypeBadPipeline, err)
}

// Evaluate works out a `when`. It sees what an assertion would see: metrics are those that the last collect stage
// computed.
func (a *Activities) Evaluate(_ context.Context, in stage.Evaluate) (bool, error) {
	folder := a.folder(in.Run)
	var found map[string]pipelines.Summary
	if err := runs.ReadJSON(folder.Metrics(), &found); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading the metrics: %w", err)
	}
	known, err := variables(folder, in.Groups, in.Stages, found)
	if err != nil {
		return false, err
	}
	holds, _, err := pipelines.Evaluate(in.Expr, pipelines.Inputs{
		Parameters: in.Parameters,
		Cell:       in.Cell,
		Env:        in.Env,
		Groups:     in.Groups,
	}, known)
	if err != nil {
		return false, badPipeline(fmt.Errorf("working out `%s`: %w", in.Expr, err))
	}
	return holds, nil
}
