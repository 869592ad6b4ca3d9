package main

import (
	"errors"
	"fmt"

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
