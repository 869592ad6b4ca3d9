//go:build record

// Histories records the histories that the workflows' tests replay: it starts the embedded Temporal server in a folder
// of its own and plays the stories of workflows/testdata/histories on it.
//
//	go run -tags record ./workflows/histories [STORY]
//
// It has a build tag because nothing else that is built with the race detector may link the server.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/groundplan/groundplan/worker/embedded"
	"github.com/groundplan/groundplan/workflows"
)

func main() {
	if err := record(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "recording histories:", err)
		os.Exit(1)
	}
}

func record(ctx context.Context) error {
	folder, err := os.MkdirTemp("", "groundplan-histories-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	token := rand.Text()
	server, err := embedded.Start(ctx, embedded.Options{
		Folder: folder, Namespace: "default", Retention: 24 * time.Hour, Token: token,
		Attributes: []string{
			workflows.AttributePipeline, workflows.AttributeVerdict, workflows.AttributeStage,
			workflows.AttributeCommit, workflows.AttributeSuite,
		},
	})
	if err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	stories := "^TestRecordHistories$"
	if len(os.Args) > 1 {
		stories += "/^" + os.Args[1] + "$"
	}
	test := exec.CommandContext(ctx, "go", "test", "-tags", "record", "./workflows", "-count=1", "-v", "-parallel=16", "-timeout=5m", "-run", stories,
		"-record", server.Address(), "-token", token)
	test.Stdout, test.Stderr = os.Stdout, os.Stderr
	testErr := test.Run()
	if err := server.Stop(); err != nil {
		return fmt.Errorf("stopping the server: %w", err)
	}
	return testErr
}
