package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/archive"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
)

type collectOptions struct {
	to      string
	archive string
	form    *string
}

func (a *app) collectCommand() *cobra.Command {
	var o collectOptions
	cmd := &cobra.Command{
		Use: "collect RUN", Short: "Take a run's outputs and record elsewhere",
		Long: "Take a run's outputs and record elsewhere: into a folder (--to) or a compressed tar file (--archive; default:\n" +
			"RUN.tar.gz here). Nothing that is there already is replaced.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.runArgument,
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error { return a.collect(args[0], o) }
	o.form = output(cmd, "text", "json")
	cmd.Flags().StringVar(&o.to, "to", "", "folder, empty or not there yet")
	cmd.Flags().StringVar(&o.archive, "archive", "", "file ending in .tar.gz or .tgz")
	exclusive(cmd, "to", "archive")
	_ = cmd.MarkFlagDirname("to")
	return cmd
}

// collected is the answer as JSON.
type collected struct {
	Run string `json:"run"`
	To  string `json:"to"`
	archive.Result
}

func (a *app) collect(prefix string, o collectOptions) error {
	if o.archive != "" && !strings.HasSuffix(o.archive, ".tar.gz") && !strings.HasSuffix(o.archive, ".tgz") {
		return usage(fmt.Errorf("--archive %s: it is a compressed tar file: name it .tar.gz or .tgz", o.archive))
	}
	_, folder, err := a.local(prefix)
	if err != nil {
		return err
	}
	id := filepath.Base(string(folder))
	target, take := o.to, archive.Copy
	if target == "" {
		target = o.archive
		if target == "" {
			target = id + ".tar.gz"
		}
		take = func(from, file string) (archive.Result, error) { return archive.Pack(from, id, file) }
	}
	result, err := take(string(folder), target)
	if err != nil {
		return fmt.Errorf("collecting run %s: %w", id, err)
	}
	if *o.form == "json" {
		return a.json(collected{Run: id, To: target, Result: result})
	}
	for _, name := range result.Left {
		a.tell("left behind: %s is neither a file nor a folder", name)
	}
	a.tell("%s in %s: %s", count(result.Files, "file"), target, report.Bytes(float64(result.Bytes)))
	return nil
}
