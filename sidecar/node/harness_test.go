package node_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The test's program plays several roles.
const (
	roleVariable = "GROUNDPLAN_NODE_TEST"
	roleStandIn  = "stand-in"
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVariable) {
	case roleStandIn:
		err = beStandIn()
	default:
		goleak.VerifyTestMain(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
