package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/pipelines"
)

func (a *app) validateCommand() *cobra.Command {
	var from source
	cmd := &cobra.Command{
		Use:               "validate FILE…",
		Short:             "Check pipelines and suites, and show every fault",
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: pipelineFile,
	}
	cmd.RunE = func(_ *cobra.Command, files []string) error { return a.validate(from, files) }
	from.flags(cmd.Flags())
	return cmd
}

// validate checks every file, whatever the one before it was like.
func (a *app) validate(from source, files []string) error {
	var faults []error
	for _, file := range files {
		what, err := check(from, file)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		a.tell("%s %s: %s", a.say.Paint(terminal.Green, "✔"), file, what)
	}
	if len(faults) > 0 {
		return usage(errors.Join(faults...))
	}
	return nil
}

// check says what a file is, or what is wrong with it.
func check(from source, file string) (string, error) {
	if isSuite(file) {
		return from.checkSuite(file)
	}
	doc, err := from.load(file)
	if err != nil {
		return "", err
	}
	r, cells, err := resolved(doc)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("pipeline %s, %s", r.Name, size(r))
	if len(cells) > 0 {
		text += fmt.Sprintf(", %d cells", len(cells))
	}
	return text, nil
}

// isSuite looks for the key that makes a document a suite. A file that can't be read is left to whoever loads it.
func isSuite(file string) bool {
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(data) {
		if bytes.HasPrefix(line, []byte("suite:")) {
			return true
		}
	}
	return false
}

func (s *source) checkSuite(file string) (string, error) {
	o, err := s.options()
	if err != nil {
		return "", err
	}
	suite, err := pipelines.LoadSuite(file, o)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("suite %s, %s", suite.Name, count(len(suite.Pipelines), "pipeline")), nil
}

// size says how large a pipeline is.
func size(r pipelines.Resolved) string {
	return count(len(r.Stages), "stage") + ", " + count(r.Instances(), "instance")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
