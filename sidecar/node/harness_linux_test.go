package node_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
)

// The test's program plays several roles.
const (
	roleStandIn    = "stand-in"         // a sidecar that holds nothing
	roleAgent      = "agent"            // a node's agent
	roleSidecar    = "sidecar of a run" // a run's sidecar on a node
	roleSupervisor = "supervisor"       // the first process of a pod
)

func TestMain(m *testing.M) {
	launchtest.Main(m, launchtest.Roles{
		roleStandIn: func([]string) error { return beStandIn() }, roleAgent: beAgent, roleSidecar: beSidecar,
		roleSupervisor: beSupervisor, roleInstance: beInstance,
	})
}

// leaksNothing checks at the end of a test, after all that it cleans up, that no goroutine is left.
func leaksNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}
