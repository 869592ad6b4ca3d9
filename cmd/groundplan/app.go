package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/worker"
)

// app is what all commands share: where they write, and the flags that every one of them takes.
type app struct {
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string

	noColor bool
	verbose bool
	// set holds the values of the settings that were given as flags.
	set map[string]string
	// register adds what the worker carries out; nil: all that groundplan does.
	register func(worker.Config, sdkworker.Registry) error

	out *terminal.Terminal // what a command was asked for
	say *terminal.Terminal // what is said to a person on the way
}

func newApp(stdout, stderr io.Writer, getenv func(string) string) *app {
	return &app{stdout: stdout, stderr: stderr, getenv: getenv, set: map[string]string{}}
}

// main carries one command line out and returns the exit status.
func (a *app) main(ctx context.Context, args []string) int {
	a.terminals()
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && err.Error() != "" {
		fmt.Fprintf(a.stderr, "%s %v\n", a.say.Paint(terminal.Red, "groundplan:"), err)
	}
	return exitStatus(err)
}

func (a *app) terminals() {
	a.out = terminal.New(a.stdout, a.noColor, a.getenv)
	a.say = terminal.New(a.stderr, a.noColor, a.getenv)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "groundplan",
		Short: "Durable test runs for distributed systems",
		Long: "groundplan carries pipelines out: it builds what is tested, places instances, puts a network under them, runs\n" +
			"them and collects what they found. A run goes on where it stood when what carried it is killed.",
		SuggestionsMinimumDistance: 2,

		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          a.noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			a.terminals() // --no-color is known now
		},
	}
	a.settings(root.PersistentFlags())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w\nSee `%s --help`.", err, cmd.CommandPath()))
	})
	root.AddGroup(&cobra.Group{ID: "pipelines", Title: "Pipelines:"}, &cobra.Group{ID: "runs", Title: "Runs:"}, &cobra.Group{ID: "machine", Title: "Services and machine:"})
	root.SetHelpCommandGroupID("machine")
	root.SetCompletionCommandGroupID("machine")
	a.add(root, "pipelines", a.initCommand(), a.validateCommand(), a.explainCommand(), a.runCommand(), a.suiteCommand(), a.importCommand(), a.capacityCommand(), a.schemaCommand())
	a.add(root, "runs", a.listCommand(), a.statusCommand(), a.watchCommand(), a.logsCommand(), a.metricsCommand(), a.reportCommand(), a.compareCommand(), a.collectCommand(), a.resumeCommand(), a.cancelCommand())
	a.add(root, "machine", a.devCommand(), a.workerCommand(), a.gcCommand(), a.doctorCommand(), a.versionCommand(), a.sidecarCommand())
	completionCommand(root)
	return root
}

// completionCommand is cobra's, which answers a shell that it doesn't know with its help and a status of 0.
func completionCommand(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args = args(cobra.NoArgs)
			c.RunE = func(*cobra.Command, []string) error {
				return usage(errors.New("for which shell? bash, zsh, fish or powershell"))
			}
		}
	}
}

func (a *app) add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// settings are the flags that say where state and services are; each is also a variable and a line of config.yaml.
func (a *app) settings(flags *pflag.FlagSet) {
	for _, s := range []struct{ name, value, text string }{
		{"home", "DIR", "state folder (default: the XDG data directory)"},
		{"temporal", "ADDR", "Temporal frontend, host:port (default: embedded)"},
		{"namespace", "NAME", "Temporal namespace"},
		{"redis", "URL", "Redis for the sync service (default: embedded)"},
		{"elasticsearch", "URL", "where collect stages push logs"},
		{"elasticsearch-user", "NAME", "user there (the password: GROUNDPLAN_ELASTICSEARCH_PASSWORD)"},
		{"elasticsearch-ca", "FILE", "PEM file of the authorities that sign its certificate"},
		{"prometheus", "URL", "Pushgateway or remote write endpoint for exported metrics"},
		{"otlp", "URL", "OTLP/HTTP endpoint for exported metrics and traces"},
		{"kube-context", "NAME", "context of the kubeconfig"},
		{"kube-namespace", "NAME", "namespace of instances on Kubernetes (default: groundplan)"},
		{"kube-system-namespace", "NAME", "namespace of groundplan's chart (default: groundplan-system)"},
		{"kube-node-selector", "LABELS", "nodes that instances may go to, key=value,…"},
		{"kube-tolerations", "TAINTS", "taints that instances tolerate, key=value:Effect,…"},
		{"registry", "HOST/PATH", "where images go that a cluster's nodes pull"},
	} {
		flags.Var(&setting{into: a.set, name: s.name, kind: s.value}, s.name, s.text)
	}
	flags.BoolVar(&a.noColor, "no-color", false, "no colours (also: NO_COLOR)")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say what the worker does")
}

// setting is a flag that keeps apart what was given from what was not.
type setting struct {
	into       map[string]string
	name, kind string
}

func (s *setting) String() string { return "" }
func (s *setting) Type() string   { return s.kind }
func (s *setting) Set(value string) error {
	s.into[s.name] = value
	return nil
}

// noSuchCommand refuses words that are no command, with the nearest one that is.
func (a *app) noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += fmt.Sprintf(" (did you mean %s?)", strings.Join(near, " or "))
	}
	return usage(fmt.Errorf("%s\nSee `groundplan --help`.", text))
}

// config works the configuration out of flags, variables and config.yaml.
func (a *app) config() (worker.Config, error) {
	config, err := worker.LoadConfig(a.set, a.getenv)
	if err != nil {
		return config, usage(fmt.Errorf("configuration: %w", err))
	}
	config.Register = a.register
	if a.verbose {
		config.Log = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return config, nil
}

// find connects to the services if they are up; the session is nil when they are not.
func (a *app) find(ctx context.Context, config worker.Config) (*worker.Session, error) {
	session, err := worker.Find(ctx, config)
	if errors.Is(err, worker.ErrNoServices) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding the services of %s: %w", config.Home, err)
	}
	return session, nil
}

// open connects to the services, or starts them. It says so when that takes longer than a person likes to wonder.
func (a *app) open(ctx context.Context, config worker.Config) (*worker.Session, error) {
	patience := time.AfterFunc(time.Second, func() { a.tell("Starting the services …") })
	defer patience.Stop()
	session, err := worker.Open(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("opening the services: %w", err)
	}
	return session, nil
}

// tell says one line to the person.
func (a *app) tell(format string, args ...any) {
	fmt.Fprintf(a.say, format+"\n", args...)
}

// json writes one document to stdout; indented, as run.json is.
func (a *app) json(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// output is the flag that chooses between forms of an answer.
func output(cmd *cobra.Command, forms ...string) *string {
	value := cmd.Flags().StringP("output", "o", forms[0], "form of the answer: "+strings.Join(forms, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp))
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(forms, *value) {
			return usage(fmt.Errorf("--output %s: choose one of %s", *value, strings.Join(forms, ", ")))
		}
		return inner(cmd, args)
	}
	return value
}

// exclusive refuses two flags that can't both be meant.
func exclusive(cmd *cobra.Command, one, other string) {
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed(one) && cmd.Flags().Changed(other) {
			return usage(fmt.Errorf("--%s and --%s can't be given together", one, other))
		}
		return inner(cmd, args)
	}
}

// args makes a wrong number of arguments a usage error that shows what is right.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usage(fmt.Errorf("%w\nUsage: %s", err, cmd.UseLine()))
		}
		return nil
	}
}

// interruptible is a context that ends when the person or the system asks the process to.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// interrupts delivers each such wish by itself. stop gives signals back their usual effect.
func interrupts() (wishes <-chan struct{}, stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	out := make(chan struct{}, 4)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-signals:
				select {
				case out <- struct{}{}:
				default: // nobody listens any more
				}
			case <-done:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(signals)
		close(done)
	}
}
