package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/report"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
)

// reportOptions are the flags of `groundplan report`.
type reportOptions struct {
	suite, file, form string
}

func (a *app) reportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "report RUN | --suite NAME", Short: "Write what came of a run, or of a suite, as one HTML file",
		Long: `Write what came of a run, or of a suite, as one HTML file that needs no network: verdict, stages, instances, metrics,
network, comparison, and how to run it again. It is written to report.html in the run's folder, for a matrix also in
those of its cells. A run under way has a report of how far it has come. Needs no services.`,
		ValidArgsFunction: a.runArgument,
	}
	var o reportOptions
	cmd.Flags().StringVar(&o.suite, "suite", "", "the report of this suite: its turns, and the runs of the newest one")
	cmd.Flags().StringVarP(&o.file, "file", "o", "", "write the document to `FILE`, or with - to stdout")
	cmd.Flags().StringVar(&o.form, "output", "text", "form of the answer: text, json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Args = func(cmd *cobra.Command, words []string) error {
		wanted := 1
		if o.suite != "" {
			wanted = 0
		}
		return args(cobra.ExactArgs(wanted))(cmd, words)
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if err := o.check(); err != nil {
			return usage(err)
		}
		return a.report(strings.Join(args, ""), o)
	}
	return cmd
}

func (o reportOptions) check() error {
	switch {
	case o.form != "text" && o.form != "json":
		return fmt.Errorf("--output %s: choose one of text, json", o.form)
	case o.file == "text" || o.file == "json":
		return fmt.Errorf("-o %s: here -o names the file to write; the form of the answer is --output %[1]s, and a file of that name ./%[1]s", o.file)
	case o.file == "-" && o.form == "json":
		return errors.New("--output json and -o - can't be given together: both are for stdout")
	}
	return nil
}

// reportDocument is the answer as JSON.
type reportDocument struct {
	Run   string `json:"run,omitempty"`
	Suite string `json:"suite,omitempty"`
	File  string `json:"file"`
	// Others are the files of a matrix' cells, or of the runs of a suite's newest turn.
	Others []string `json:"others,omitempty"`
}

func (a *app) report(prefix string, o reportOptions) error {
	config, err := a.config()
	if err != nil {
		return err
	}
	var document []byte
	answer := reportDocument{Suite: o.suite}
	var beside []string
	if o.suite != "" {
		document, beside, err = suiteReport(config.Home, o.suite)
		answer.File = filepath.Join(config.Home.Suites(), o.suite, "report.html")
	} else {
		answer.Run, document, beside, err = runReport(config, prefix)
		answer.File = config.Home.Run(answer.Run).Report()
	}
	switch {
	case err != nil:
		return err
	case o.file == "-":
		_, err := a.stdout.Write(document)
		return err
	case o.file != "":
		if answer.File, err = filepath.Abs(o.file); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	default:
		if answer.Others, err = writeReports(config.Home, beside); err != nil {
			return err
		}
	}
	if err := runs.WriteWhole(answer.File, document); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if o.form == "json" {
		return a.json(answer)
	}
	_, err = fmt.Fprintln(a.out, answer.File)
	return err
}

// runReport is the document of a run, and the cells whose reports it links to.
func runReport(config worker.Config, prefix string) (id string, document []byte, cells []string, err error) {
	if id, err = known(context.Background(), config, nil, prefix); err != nil {
		return "", nil, nil, err
	}
	var b bytes.Buffer
	if err := report.Run(&b, config.Home, id); err != nil {
		return id, nil, nil, err
	}
	if record, err := config.Home.Run(id).ReadRecord(); err == nil { // the report says what is wrong with one that can't be read
		for _, c := range record.Cells {
			cells = append(cells, c.Run)
		}
	}
	return id, b.Bytes(), cells, nil
}

// suiteReport is the document of a suite, and the runs of its newest turn.
func suiteReport(home runs.Home, suite string) (document []byte, ids []string, err error) {
	var b bytes.Buffer
	switch err := report.Suite(&b, home, suite); {
	case errors.Is(err, report.ErrNoHistory):
		return nil, nil, usage(err)
	case err != nil:
		return nil, nil, err
	}
	if turns, err := home.ReadSuiteTurns(suite); err == nil && len(turns) > 0 {
		for _, r := range turns[0].Runs {
			ids = append(ids, r.Run)
		}
	}
	return b.Bytes(), ids, nil
}

// writeReports writes the reports of runs into their folders; those that have none are left out.
func writeReports(home runs.Home, ids []string) (files []string, err error) {
	for _, id := range ids {
		if runs.CheckID(id) != nil {
			continue
		}
		var b bytes.Buffer
		err := report.Run(&b, home, id)
		if errors.Is(err, runs.ErrNoRecord) {
			continue
		}
		if err != nil {
			return files, err
		}
		if err := runs.WriteWhole(home.Run(id).Report(), b.Bytes()); err != nil {
			return files, fmt.Errorf("writing the report of %s: %w", id, err)
		}
		files = append(files, home.Run(id).Report())
	}
	return files, nil
}
