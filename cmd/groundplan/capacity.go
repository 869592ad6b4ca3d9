package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/kubernetes"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/capacity"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/runid"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
)

// mostInstances is how many a pipeline may have.
const mostInstances = 100_000

type capacityOptions struct {
	source
	instances int
	sample    int
	stage     string
	bound     time.Duration
	headroom  string
	prices    string
	form      *string
}

func (a *app) capacityCommand() *cobra.Command {
	var o capacityOptions
	var print bool
	cmd := &cobra.Command{
		Use:   "capacity FILE",
		Short: "Measure a few instances, and say which machines a cluster needs",
		Long: "Run a few instances of each group here, up to the end of the first run stage, and say from what they took how many\n" +
			"machines of each type a cluster needs for all of them, and what those cost. Memory and processors that a group\n" +
			"declares count instead of what was measured. The prices are a file: --print-prices writes it, --prices takes yours.",
		ValidArgsFunction: pipelineFile,
	}
	cmd.Args = func(cmd *cobra.Command, files []string) error {
		if print {
			return args(cobra.NoArgs)(cmd, files)
		}
		return args(cobra.ExactArgs(1))(cmd, files)
	}
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		if print {
			_, err := a.stdout.Write(capacity.DefaultPrices)
			return err
		}
		return a.capacity(cmd.Context(), files[0], o)
	}
	o.form = output(cmd, "text", "json")
	cmd.Flags().StringArrayVar(&o.set, "set", nil, "override a parameter: --set peers=2000 (repeat for more)")
	cmd.Flags().StringVar(&o.seed, "seed", "", "seed of every random choice of the run")
	cmd.Flags().IntVar(&o.instances, "instances", 0, "how many instances the answer is for (default: as many as FILE has)")
	cmd.Flags().IntVar(&o.sample, "sample", 3, "how many instances of each group to run")
	cmd.Flags().StringVar(&o.stage, "stage", "", "the run stage to measure (default: the first)")
	cmd.Flags().DurationVar(&o.bound, "for", time.Minute, "end the run stage after this time at the latest")
	cmd.Flags().StringVar(&o.headroom, "headroom", "20%", "added to what was measured")
	cmd.Flags().StringVar(&o.prices, "prices", "", "file of machine types and prices (default: one that ships, to be checked)")
	cmd.Flags().BoolVar(&print, "print-prices", false, "write the file of prices that ships, and do nothing else")
	return cmd
}

// capacityAnswer is the answer as JSON.
type capacityAnswer struct {
	Pipeline  string             `json:"pipeline"`
	Run       string             `json:"run"` // what was measured in
	Instances int                `json:"instances"`
	Groups    []capacity.Group   `json:"groups"`
	Prices    string             `json:"pricesAsOf"`
	Machines  []capacity.Machine `json:"machines"`
}

func (a *app) capacity(ctx context.Context, file string, o capacityOptions) error {
	headroom, prices, err := o.check()
	if err != nil {
		return err
	}
	config, err := a.config()
	if err != nil {
		return err
	}
	doc, err := o.load(file)
	if err != nil {
		return err
	}
	a.tellLost(o.lost)
	start, whole, err := o.start(ctx, doc, file)
	if err != nil {
		return err
	}
	rec, err := a.measure(ctx, config, start, file)
	if err != nil {
		return err
	}
	groups := capacity.Groups(whole, rec.Groups, float64(headroom), o.instances)
	answer := capacityAnswer{
		Pipeline: whole.Name, Run: rec.ID, Groups: groups, Prices: prices.AsOf, Machines: capacity.Machines(prices, groups),
	}
	for _, g := range groups {
		answer.Instances += g.Instances
	}
	if *o.form == "json" {
		return a.json(answer)
	}
	return a.sayCapacity(answer)
}

// check refuses flags that can't be meant, and reads the prices.
func (o *capacityOptions) check() (headroom pipelines.Share, prices capacity.Prices, err error) {
	switch {
	case o.instances < 0 || o.instances > mostInstances:
		return 0, prices, usage(fmt.Errorf("--instances %d: a number from 1 to %d is needed", o.instances, mostInstances))
	case o.sample < 1:
		return 0, prices, usage(fmt.Errorf("--sample %d: at least one instance of each group has to run", o.sample))
	case o.bound < time.Second:
		return 0, prices, usage(fmt.Errorf("--for %v: at least a second is needed", o.bound))
	}
	headroom, err = pipelines.ParseShare(o.headroom)
	if err != nil {
		return 0, prices, usage(fmt.Errorf("--headroom: %w", err))
	}
	name, content := "the file that ships", capacity.DefaultPrices
	if o.prices != "" {
		name = o.prices
		if content, err = os.ReadFile(o.prices); err != nil {
			return 0, prices, usage(fmt.Errorf("--prices: %w", err))
		}
	}
	prices, err = capacity.ParsePrices(name, content)
	if err != nil {
		return 0, prices, usage(err)
	}
	return headroom, prices, nil
}

// start is the run that measures, and the whole pipeline that it is a sample of.
func (o *capacityOptions) start(ctx context.Context, doc *pipelines.Document, file string) (worker.StartOptions, pipelines.Resolved, error) {
	run := runOptions{source: o.source, on: groundLocal}
	start, err := run.start(ctx, doc, file)
	if err != nil {
		return start, pipelines.Resolved{}, err
	}
	whole := start.Pipeline
	sample, err := capacity.Sample(whole, o.stage, o.sample, pipelines.Duration(o.bound))
	if err != nil {
		return start, whole, usage(err)
	}
	start.Pipeline, start.Matrix, start.Run.ID = sample, nil, runid.New(sample.Name, time.Now())
	return start, whole, nil
}

// measure carries the sample out and gives its record. A run that did not pass is as good, as long as instances ran.
func (a *app) measure(ctx context.Context, config worker.Config, start worker.StartOptions, file string) (rec runs.Record, err error) {
	session, err := a.open(ctx, config)
	if err != nil {
		return rec, err
	}
	wishes, stop := interrupts()
	defer stop()
	handle, err := session.Start(ctx, start)
	if err != nil {
		return rec, closed(session, refused(err))
	}
	at := attendance{
		run: handle, id: start.Run.ID, pipeline: start.Pipeline.Name, started: time.Now(), config: config, wishes: wishes,
	}
	ending, err := a.attend(ctx, session, at, a.view(at, opening(start, file, a.say.Live)))
	if ending.Left {
		return rec, &exitError{errSaid, exitCancelled}
	}
	if err != nil {
		return rec, errors.Join(err, session.Close())
	}
	rec = a.record(at, ending)
	if fault := session.Close(); fault != nil {
		a.tell("closing the services: %v", fault)
	}
	if len(rec.Groups) > 0 && exitStatus(verdict(rec.Verdict)) != exitCancelled {
		return rec, nil
	}
	a.summary(at, rec)
	return rec, errors.Join(verdict(rec.Verdict), nothingMeasured(rec))
}

// nothingMeasured is for a run in which no instance came so far, but that passed all the same.
func nothingMeasured(rec runs.Record) error {
	if verdict(rec.Verdict) != nil {
		return nil
	}
	return fmt.Errorf("run %s has no figures of instances: nothing was measured", rec.ID)
}

// sayCapacity writes the tables to stdout, and what is to be kept in mind to stderr.
func (a *app) sayCapacity(answer capacityAnswer) error {
	a.tell("")
	if _, err := fmt.Fprint(a.out, a.out.Unbounded().Table(groupRows(answer.Groups)), "\n", a.out.Unbounded().Table(machineRows(answer.Machines))); err != nil {
		return err
	}
	a.tell("")
	for _, g := range answer.Groups {
		for _, note := range g.Notes {
			a.tell("  %s %s: %s", a.say.Paint(terminal.Yellow, "!"), g.Name, note)
		}
	}
	a.tell("  Measured in run %s, on this machine. EACH has the supervisor's share (up to %s), the pod's sandbox (%s) and its network (%s) in it.",
		answer.Run, report.Bytes(kubernetes.SupervisorShare), report.Bytes(capacity.SandboxMemory), report.Bytes(capacity.NetworkMemory))
	a.tell("  Prices in US dollars as of %s: check them. They leave out disks, traffic, tax, and whatever quota the account has.", answer.Prices)
	return nil
}

// titles is a row of column titles; one that begins with ">" is aligned to the right.
func titles(names ...string) []terminal.Cell {
	row := make([]terminal.Cell, len(names))
	for i, name := range names {
		text, right := strings.CutPrefix(name, ">")
		row[i] = terminal.Cell{Text: text, Style: terminal.Dim, Right: right}
	}
	return row
}

func rightText(text string) terminal.Cell { return terminal.Cell{Text: text, Right: true} }

func size64(n int64) terminal.Cell { return rightText(report.Bytes(float64(n))) }

func number(n int) terminal.Cell { return rightText(strconv.Itoa(n)) }

func thousandths(n int64) terminal.Cell { return rightText(strconv.FormatInt(n, 10) + "m") }

func groupRows(groups []capacity.Group) [][]terminal.Cell {
	rows := [][]terminal.Cell{titles("GROUP", ">INSTANCES", ">MEASURED", ">PEAK MEMORY", ">CPU", ">TIME", ">EACH: MEMORY", ">CPU")}
	for _, g := range groups {
		took := time.Duration(g.Seconds * float64(time.Second))
		rows = append(rows, []terminal.Cell{
			terminal.Text(g.Name), number(g.Instances), number(g.Measured), size64(g.Peak), thousandths(g.Busy), rightText(terminal.Elapsed(took)),
			size64(g.Memory), thousandths(g.CPU),
		})
	}
	return rows
}

func machineRows(machines []capacity.Machine) [][]terminal.Cell {
	rows := [][]terminal.Cell{titles("PROVIDER", "MACHINE", ">VCPU", ">MEMORY", ">PODS", "", ">A NODE HOLDS", ">NODES", "FULL OF", ">USD/H")}
	provider := ""
	for _, m := range machines {
		row := []terminal.Cell{
			terminal.Text(m.Provider), terminal.Text(m.Type), number(m.VCPU), size64(m.Memory), number(m.Pods), {Text: m.Mode, Style: terminal.Dim},
		}
		style := terminal.Plain
		if m.Provider != provider { // the first of a provider is its cheapest
			style = terminal.Green
		}
		if m.Nodes == 0 {
			row = append(row, rightText("-"), rightText("-"), terminal.Text("too small: "+m.Bound))
		} else {
			row = append(row, number(m.Each), number(m.Nodes), terminal.Text(m.Bound),
				terminal.Cell{Text: strconv.FormatFloat(m.Hour, 'f', 2, 64), Style: style, Right: true})
		}
		provider = m.Provider
		rows = append(rows, row)
	}
	return rows
}
