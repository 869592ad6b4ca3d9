package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Report is what was found in the results of a run.
type Report struct {
	// Metrics is name → summary over all instances, and `<group>.<name>` → summary over one group; either with
	// `.<phase>.<event>` behind it → summary over what was measured before, during or after the event.
	Metrics map[string]pipelines.Summary
	// Series is the same for other programs: by run stage, and with names in their parts. They are in order.
	Series []Series `json:"-"`
	// Samples is name → summaries of single instances, of at most MostSampled evenly chosen ones; a comparison with other
	// runs is made with them.
	Samples map[string][]pipelines.Summary
	// Files counts the files read.
	Files int
	// BadLines counts the lines that are no metrics, and BadLine names the first one found.
	BadLines int
	BadLine  string
}

// MostSampled bounds how many instances a metric's samples come from.
const MostSampled = 1000

// Summarise reads results.out of every instance of the groups. progress is called with the number of instances done, one
// call at a time.
func Summarise(ctx context.Context, folder runs.Folder, groups []pipelines.Group, times Times, progress func(done int)) (Report, error) {
	c := collector{times: times, all: map[string]*distribution{}, series: map[Label]*distribution{}, bad: map[instance]file{}, samples: map[string]map[instance]pipelines.Summary{}}
	total := 0
	for _, group := range groups {
		total += group.Instances
	}
	every := (total + MostSampled - 1) / MostSampled
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(max(runtime.GOMAXPROCS(0), 2))
	done, slot := 0, -1
	for g, group := range groups {
		for index := range group.Instances {
			slot++
			sampled := slot%every == 0
			work.Go(func() error {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				err := c.instance(ctx, folder, instance{g, index}, group.Name, sampled)
				c.mu.Lock()
				defer c.mu.Unlock()
				done++
				progress(done)
				return err
			})
		}
	}
	if err := work.Wait(); err != nil {
		return Report{}, err
	}
	return c.report(groups), nil
}

// instance is a group by its place in the pipeline, and an index in it.
type instance struct{ group, index int }

// collector gathers what the files of many instances say.
type collector struct {
	times  Times
	mu     sync.Mutex
	all    map[string]*distribution
	series map[Label]*distribution
	// samples is metric → instance → what it measured.
	samples map[string]map[instance]pipelines.Summary
	files   int
	bad     map[instance]file
}

// instance reads the results of one instance; none are no error.
func (c *collector) instance(ctx context.Context, folder runs.Folder, who instance, group string, sampled bool) error {
	path := filepath.Join(folder.Outputs(group, who.index), "results.out")
	results, err := runs.OpenRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading metrics: %w", err)
	}
	defer results.Close()
	f := file{group: group, times: c.times}
	if err := f.read(bounded{ctx, results}); err != nil {
		return fmt.Errorf("reading metrics of %s/%d: %w", group, who.index, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files++
	if f.bad > 0 {
		c.bad[who] = file{bad: f.bad, first: f.first}
	}
	c.take(group, "", f.tally)
	if sampled {
		c.sample(who, group, f.tally)
	}
	c.label(Label{Group: group}, f.outside)
	for i, w := range c.times.Stages[group] {
		c.label(Label{Group: group, Stage: w.Stage}, f.stages[i])
	}
	for i, w := range c.times.Windows {
		c.take(group, "."+w.name(), f.phases[i])
		c.label(Label{Group: group, Stage: w.Stage, Phase: w.Phase, Event: w.Event}, f.phases[i])
	}
	return nil
}

// take adds what an instance has said, under the names of its metrics with something behind them.
func (c *collector) take(group, behind string, t *tally) {
	for metric, values := range t.values {
		merge(c.all, metric+behind, values)
		merge(c.all, group+"."+metric+behind, values)
	}
}

// label adds what an instance has said in a stage or a phase of one, to its group's series and to that of all.
func (c *collector) label(l Label, t *tally) {
	for metric, values := range t.values {
		l.Metric = metric
		merge(c.series, l, values)
		all := l
		all.Group = ""
		merge(c.series, all, values)
	}
}

// sample keeps what one instance has said, by itself.
func (c *collector) sample(who instance, group string, t *tally) {
	for metric, values := range t.values {
		for _, name := range []string{metric, group + "." + metric} {
			if c.samples[name] == nil {
				c.samples[name] = map[instance]pipelines.Summary{}
			}
			c.samples[name][who] = values.summary()
		}
	}
}

func merge[K comparable](into map[K]*distribution, name K, values *distribution) {
	d := into[name]
	if d == nil {
		d = &distribution{}
		into[name] = d
	}
	d.merge(values)
}

// bounded reads until its context is over: one file may hold gigabytes, and a stage that was cancelled has to end.
type bounded struct {
	ctx context.Context
	io.Reader
}

func (b bounded) Read(into []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	return b.Reader.Read(into)
}

// report sums up. The first bad line is that of the first instance that has one, whichever was read first.
func (c *collector) report(groups []pipelines.Group) Report {
	r := Report{Metrics: map[string]pipelines.Summary{}, Samples: map[string][]pipelines.Summary{}, Files: c.files}
	for name, of := range c.samples {
		inOrder := slices.SortedFunc(maps.Keys(of), func(a, b instance) int {
			return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.index, b.index))
		})
		for _, who := range inOrder {
			if s := of[who]; s.Count > 0 {
				r.Samples[name] = append(r.Samples[name], s)
			}
		}
	}
	for name, values := range c.all {
		if s := values.summary(); s.Count > 0 {
			r.Metrics[name] = s
		}
	}
	r.Series = seriesOf(c.series, len(groups))
	first := instance{len(groups), 0}
	for who, f := range c.bad {
		r.BadLines += f.bad
		if who.group < first.group || who.group == first.group && who.index < first.index {
			first = who
			r.BadLine = fmt.Sprintf("%s/%d %s", groups[who.group].Name, who.index, f.first)
		}
	}
	return r
}

// Summary sums up values that are there already.
func Summary(values []float64) pipelines.Summary {
	var d distribution
	for _, value := range values {
		d.add(value, 1)
	}
	return d.summary()
}
