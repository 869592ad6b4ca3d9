//go:build linux

// Command groundplan-supervisor waits in the pod of an instance for the stages of a run.
//
//	groundplan-supervisor                 supervises; the first process of the pod's container
//	groundplan-supervisor install FOLDER  copies itself to FOLDER/supervisor and makes the instance's folders there
package main

import (
	"fmt"
	"os"

	"github.com/groundplan/groundplan/sidecar/supervisor"
)

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 0:
		err = supervisor.Run()
	case len(args) == 2 && args[0] == "install":
		err = supervisor.Install(args[1])
	default:
		fmt.Fprintln(os.Stderr, "usage: groundplan-supervisor [install FOLDER]")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "groundplan-supervisor: %v\n", err)
		os.Exit(1)
	}
}
