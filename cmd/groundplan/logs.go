package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/logs"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/runs/said"
)

type logsOptions struct {
	follow bool
	stderr bool
	raw    bool
	form   *string
}

func (a *app) logsCommand() *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use: "logs RUN [GROUP[/INDEX]]", Short: "Print what instances wrote",
		Long: "Print what the instances of a run wrote to stdout (--stderr: to stderr), each line behind the instance's name.\n" +
			"Events of the SDKs are shown as what they say; --raw leaves them as they are.",
		Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: a.runArgument,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.logs(cmd.Context(), args, o) }
	o.form = output(cmd, "text", "json")
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on until the run has ended")
	cmd.Flags().BoolVar(&o.stderr, "stderr", false, "what was written to stderr")
	cmd.Flags().BoolVar(&o.raw, "raw", false, "lines as they were written")
	return cmd
}

func (a *app) logs(ctx context.Context, args []string, o logsOptions) error {
	selection := logs.All
	if len(args) == 2 {
		var err error
		if selection, err = logs.Select(args[1]); err != nil {
			return usage(err)
		}
	}
	_, folder, err := a.local(args[0])
	if err != nil {
		return err
	}
	how := logs.Options{Stderr: o.stderr}
	if o.follow {
		how.Every, how.Ended = 200*time.Millisecond, func() bool { return hasEnded(folder) }
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	err = logs.Read(ctx, folder, selection, how, a.logLine(o))
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C is how one leaves a log
	}
	var nobody *logs.NobodyError
	if errors.As(err, &nobody) {
		return usage(err)
	}
	return err
}

// hasEnded says whether there is nothing more to come. A run without a record has only begun.
func hasEnded(folder runs.Folder) bool {
	rec, err := folder.ReadRecord()
	return err == nil && rec.Status == stage.StatusEnded
}

// logLine writes a line in the form that was asked for.
func (a *app) logLine(o logsOptions) func(logs.Line) error {
	if *o.form == "json" {
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		return func(line logs.Line) error { return enc.Encode(line) }
	}
	return func(line logs.Line) error {
		text := line.Text
		if at, what, ok := said.Line(text); ok && !o.raw {
			text = at.Format("15:04:05.000") + " " + what
		}
		prefix := a.out.Paint(terminal.Dim, fmt.Sprintf("%s/%d │ ", line.Group, line.Index))
		for part := range strings.SplitSeq(text, "\n") {
			if a.out.Live && !o.raw {
				part = terminal.Clean(part) // what an instance wrote must not steer the terminal
			}
			if _, err := fmt.Fprintf(a.stdout, "%s%s\n", prefix, part); err != nil {
				return err
			}
		}
		return nil
	}
}
