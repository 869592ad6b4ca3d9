package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/runid"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/worker"
)

// The grounds that --on names.
const (
	groundLocal      = "local"
	groundKubernetes = "kubernetes"
)

type runOptions struct {
	source
	on     string
	id     string
	detach bool
	dryRun bool
	form   *string
	// from is the run to take results over from, and stage the one to begin with then.
	from, stage string
	// context and namespace are those of the cluster, for --on kubernetes.
	context, namespace string
}

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [FILE]",
		Short: "Carry a pipeline out and give its verdict",
		Long: "Carry a pipeline out and give its verdict as the exit status: 0 passed, 1 failed, 2 wrong usage or file, 3 invalid,\n" +
			"130 cancelled. With --on kubernetes, --namespace is the namespace of the instances too (as --kube-namespace, which goes\n" +
			"before it). FILE can be a Testground composition too, in the folder of its plan. Ctrl-C cancels the run; a second one leaves at once, and the run can be resumed.\n\n" +
			"With --from, a new run takes over what an earlier one came to, and begins with the stage that --stage names, or with the\n" +
			"first one that can't be taken over. FILE, the parameters and the seed are the earlier run's where nothing else is said.",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: pipelineFile,
	}
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		switch {
		case cmd.Flags().Changed("from"):
			return a.fork(cmd.Context(), files, o, cmd.Flags().Changed("on"))
		case len(files) == 0:
			return usage(fmt.Errorf("which pipeline? Name its file, or with --from the run to go on from\nUsage: %s", cmd.UseLine()))
		case o.stage != "":
			return usage(errors.New("--stage names the stage that a run with --from begins with; did you mean --only?"))
		}
		return a.run(cmd.Context(), files[0], o)
	}
	o.form = output(cmd, "text", "json", "junit")
	o.flags(cmd.Flags())
	cmd.Flags().StringVar(&o.from, "from", "", "run whose results to take over")
	cmd.Flags().StringVar(&o.stage, "stage", "", "with --from: stage to begin with (default: the first that can't be taken over)")
	_ = cmd.RegisterFlagCompletionFunc("from", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.runArgument(cmd, nil, "")
	})
	cmd.Flags().StringVar(&o.on, "on", groundLocal, "where instances live: local or kubernetes")
	cmd.Flags().StringVar(&o.id, "run-id", "", "id of the run (default: made from the pipeline's name and the time)")
	cmd.Flags().BoolVar(&o.detach, "detach", false, "start the run, print its id and leave")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would be done, and do nothing")
	exclusive(cmd, "detach", "dry-run")
	exclusive(cmd, "from", "only")
	return cmd
}

// run refuses what is wrong before anything starts, then starts the run and stays with it.
func (a *app) run(ctx context.Context, file string, o runOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	config, err := a.configFor(&o)
	if err != nil {
		return err
	}
	doc, err := o.load(file)
	if err != nil {
		return err
	}
	a.tellLost(o.lost)
	if o.dryRun {
		return a.explain(doc, *o.form)
	}
	start, err := o.start(ctx, doc, file)
	if err != nil {
		return err
	}
	return a.carryOut(ctx, config, start, file, o)
}

// carryOut starts a run and stays with it, or leaves it to the services in the background.
func (a *app) carryOut(ctx context.Context, config worker.Config, start worker.StartOptions, file string, o runOptions) error {
	if o.detach {
		return a.detach(ctx, config, start, *o.form)
	}
	session, err := a.open(ctx, config)
	if err != nil {
		return err
	}
	wishes, stop := interrupts()
	defer stop()
	handle, err := session.Start(ctx, start)
	if err != nil {
		return closed(session, refused(err))
	}
	return a.stay(ctx, session, attendance{
		run: handle, id: start.Run.ID, pipeline: start.Pipeline.Name, started: time.Now(),
		config: config, form: *o.form, wishes: wishes,
	}, opening(start, file, a.say.Live))
}

// configFor is the configuration for a run on its ground.
func (a *app) configFor(o *runOptions) (worker.Config, error) {
	if o.on == groundKubernetes {
		a.inNamespace()
	}
	config, err := a.config()
	if o.on == groundKubernetes {
		// Whoever carries the run out may have been started with others.
		o.context, o.namespace = config.KubeContext, config.KubeNamespace
	}
	return config, err
}

func (o *runOptions) check() error {
	switch o.on {
	case groundLocal, groundKubernetes:
	default:
		return usage(fmt.Errorf("--on %s: choose local or kubernetes", o.on))
	}
	if o.id != "" {
		if err := runid.Check(o.id); err != nil {
			return usage(err)
		}
	}
	if o.dryRun && *o.form == "junit" {
		return usage(fmt.Errorf("--dry-run has no verdict to write as junit: choose --output text or json"))
	}
	return nil
}

// inNamespace takes --namespace for the namespace of the instances, as other programs on Kubernetes do, where
// --kube-namespace doesn't say that it isn't. Temporal's is then what a variable or config.yaml says.
func (a *app) inNamespace() {
	name, said := a.set["namespace"]
	if _, other := a.set["kube-namespace"]; said && !other {
		a.set["kube-namespace"] = name
		delete(a.set, "namespace")
	}
}

// start is what to ask the services for.
func (o *runOptions) start(ctx context.Context, doc *pipelines.Document, file string) (worker.StartOptions, error) {
	r, cells, err := resolved(doc)
	if err != nil {
		return worker.StartOptions{}, err
	}
	root, err := rootOf(file, doc)
	if err != nil {
		return worker.StartOptions{}, err
	}
	id := o.id
	if id == "" {
		id = runid.New(r.Name, time.Now())
	}
	start := worker.StartOptions{
		Run:      stage.Run{ID: id, Ground: o.on, Root: root, Commit: activities.Commit(ctx, root), Context: o.context, Namespace: o.namespace},
		Pipeline: r,
	}
	if len(cells) > 0 {
		start.Matrix = &worker.Matrix{Bundle: doc.Bundle(), Cells: cells, MaxParallel: doc.MaxParallel()}
	}
	return start, nil
}

// opening is the first thing said of a run. A live view has the run's id in its heading.
func opening(start worker.StartOptions, file string, live bool) string {
	text := fmt.Sprintf("%s: %s, seed %d", file, size(start.Pipeline), start.Pipeline.Seed)
	if start.Matrix != nil {
		text += ", " + count(len(start.Matrix.Cells), "cell")
	}
	if start.Run.From != "" {
		text += fmt.Sprintf(", with %s of run %s", count(len(start.Earlier), "stage"), start.Run.From)
	}
	if live {
		return text
	}
	return "run " + start.Run.ID + " of " + text
}

// refused makes an id that can't be used the caller's error.
func refused(err error) error {
	if errors.Is(err, worker.ErrRunning) || errors.Is(err, worker.ErrExists) {
		return usage(err)
	}
	return err
}
