package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/starter"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
)

func (a *app) initCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "init [DIR]", Short: "Begin a plan: a pipeline and a small program to test",
		Long: "Write a pipeline and a small Go program into DIR (default: here), ready for `groundplan run`. What is there already is\n" +
			"never replaced.",
		Args: args(cobra.MaximumNArgs(1)),
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		dir := "."
		if len(args) == 1 {
			dir = args[0]
		}
		return a.begin(dir, name)
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the pipeline (default: made from the folder's)")
	return cmd
}

func (a *app) begin(dir, name string) error {
	if name == "" {
		path, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		name = starter.Name(path)
	}
	paths, err := starter.Write(dir, starter.Facts{Name: name, Go: language(runtime.Version())})
	if err != nil {
		return usage(fmt.Errorf("beginning a plan: %w", err))
	}
	for _, path := range paths {
		a.tell("%s %s", a.say.Paint(terminal.Green, "✔"), path)
	}
	a.tell("Next: groundplan run %s", filepath.Join(dir, "pipeline.yaml"))
	return nil
}

// language makes the language version of a toolchain's: go1.26.8 → 1.26.
func language(toolchain string) string {
	parts := strings.SplitN(strings.TrimPrefix(toolchain, "go"), ".", 3)
	if len(parts) < 2 {
		return "1.26"
	}
	return parts[0] + "." + parts[1]
}
