package workflows

import "go.temporal.io/sdk/workflow"

// RunMatrix is not written yet.
func RunMatrix(ctx workflow.Context, in MatrixInput) (Output, error) { return Output{}, nil }
