// Package workflows carries a pipeline through, durably: the graph of its stages, their retries, what a person decides
// about a run that holds, and what becomes of its placement. It holds deterministic code only; all work is done by the
// activities that package stage names.
package workflows

import "go.temporal.io/sdk/workflow"

// Registry is where workflows are made known: a worker.Worker, a worker.WorkflowReplayer or a test environment.
type Registry interface {
	RegisterWorkflowWithOptions(w any, options workflow.RegisterOptions)
}

// Register makes the workflows known under the names that clients start them by.
func Register(r Registry) {
	r.RegisterWorkflowWithOptions(RunPipeline, workflow.RegisterOptions{Name: WorkflowPipeline})
	r.RegisterWorkflowWithOptions(RunMatrix, workflow.RegisterOptions{Name: WorkflowMatrix})
	r.RegisterWorkflowWithOptions(RunSuite, workflow.RegisterOptions{Name: WorkflowSuite})
	r.RegisterWorkflowWithOptions(TellSuite, workflow.RegisterOptions{Name: WorkflowTell})
}
