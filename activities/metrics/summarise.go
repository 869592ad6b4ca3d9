package metrics

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Report is what was found in the results of a run.
type Report struct {
	// Metrics is name → summary over all instances, and `<group>.<name>` → summary over one group.
	Metrics map[string]pipelines.Summary
	// Files counts the files read.
	Files int
	// BadLines counts the lines that are no metrics, and BadLine names the first one found.
	BadLines int
	BadLine  string
}

// Summarise reads results.out of every instance of the groups. progress is called with the number of instances done,
// one call at a time.
func Summarise(ctx context.Context, folder runs.Folder, groups []pipelines.Group, progress func(done int)) (Report, error) {
	c := collector{all: map[string]*distribution{}, bad: map[instance]file{}}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(max(runtime.GOMAXPROCS(0), 2))
	done := 0
	for g, group := range groups {
		for index := range group.Instances {
			work.Go(func() error {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				err := c.instance(folder, instance{g, index}, group.Name)
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
	mu    sync.Mutex
	all   map[string]*distribution
	files int
	bad   map[instance]file
}

// instance reads the results of one instance; none are no error.
func (c *collector) instance(folder runs.Folder, who instance, group string) error {
	path := filepath.Join(folder.Outputs(group, who.index), "results.out")
	results, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading metrics: %w", err)
	}
	defer results.Close()
	var f file
	if err := f.read(results); err != nil {
		return fmt.Errorf("reading metrics of %s/%d: %w", group, who.index, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files++
	if f.bad > 0 {
		c.bad[who] = file{bad: f.bad, first: f.first}
	}
	for metric, values := range f.values {
		c.merge(metric, values)
		c.merge(group+"."+metric, values)
	}
	return nil
}

func (c *collector) merge(name string, values *distribution) {
	d := c.all[name]
	if d == nil {
		d = &distribution{}
		c.all[name] = d
	}
	d.merge(values)
}

// openRegular opens a regular file. An instance may have put anything in its place: a pipe would be waited for forever.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file: %w", path, fs.ErrNotExist)
	}
	return os.Open(path)
}

// report sums up. The first bad line is that of the first instance that has one, whichever was read first.
func (c *collector) report(groups []pipelines.Group) Report {
	r := Report{Metrics: map[string]pipelines.Summary{}, Files: c.files}
	for name, values := range c.all {
		if s := values.summary(); s.Count > 0 {
			r.Metrics[name] = s
		}
	}
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
