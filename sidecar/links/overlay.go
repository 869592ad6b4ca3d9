package links

import (
	"fmt"

	"github.com/groundplan/groundplan/pipelines"
)

// row is one thing asked of a link, with the name that its bandwidth's bucket gets.
type row struct {
	shape  Shape
	bucket string
}

// lay puts a row over what there is of a path.
func (p *Path) lay(r row) {
	s := r.shape
	set(&p.Latency, s.Latency)
	set(&p.Jitter, s.Jitter)
	if s.Distribution != "" {
		p.Distribution = s.Distribution
	}
	set(&p.Loss, s.Loss)
	set(&p.LossCorrelation, s.LossCorr)
	set(&p.Duplicate, s.Duplicate)
	set(&p.DuplicateCorrelation, s.DuplicateCorrelation)
	set(&p.Reorder, s.Reorder)
	set(&p.ReorderCorrelation, s.ReorderCorrelation)
	set(&p.Corrupt, s.Corrupt)
	set(&p.CorruptCorrelation, s.CorruptCorrelation)
	if s.Bandwidth != nil {
		p.Bandwidth, p.Bucket = int64(*s.Bandwidth), r.bucket
	}
	set(&p.Queue, s.Queue)
	if s.Policy != "" {
		p.Policy = policies[s.Policy]
	}
}

func set[T, U ~int64 | ~float64 | ~int](field *T, value *U) {
	if value != nil {
		*field = T(*value)
	}
}

var policies = map[string]Policy{"accept": Accept, "reject": Reject, "drop": Drop}

// settled is the path without what has no effect, so that paths which do the same are equal.
func (p Path) settled() Path {
	if p.Jitter == 0 {
		p.Distribution = ""
	} else if p.Distribution == "" {
		p.Distribution = "normal"
	}
	if p.Latency == 0 && p.Jitter == 0 {
		p.Reorder = 0 // nothing is there to be overtaken
	}
	for _, s := range []struct{ share, correlation *float64 }{
		{&p.Loss, &p.LossCorrelation}, {&p.Duplicate, &p.DuplicateCorrelation},
		{&p.Reorder, &p.ReorderCorrelation}, {&p.Corrupt, &p.CorruptCorrelation},
	} {
		if *s.share == 0 {
			*s.correlation = 0
		}
	}
	if p.Bandwidth == 0 {
		p.Bucket, p.Queue = "", 0
	}
	return p
}

// pair is two groups by their number, one direction.
type pair struct{ from, to int }

// layer is what a stage or an event asks for between groups.
type layer struct {
	fallback row
	regions  []string // of every group
	matrix   map[string]map[string]pipelines.Duration
	rows     map[pair][]row
}

// newLayer sorts a network by pairs of groups. The prefix tells its buckets from those of others.
func newLayer(n pipelines.Network, groups []pipelines.Group, number map[string]int, prefix string) (layer, error) {
	l := layer{
		fallback: row{Shape{Shape: n.Default}, prefix + "default"},
		matrix:   n.Matrix,
		rows:     make(map[pair][]row, len(n.Links)),
	}
	for _, g := range groups {
		l.regions = append(l.regions, g.Region)
	}
	if err := l.fallback.shape.check(); err != nil {
		return layer{}, fmt.Errorf("the default shape: %w", err)
	}
	for i, link := range n.Links {
		from, known := number[link.From]
		to, known2 := number[link.To]
		if !known || !known2 {
			return layer{}, fmt.Errorf("the link %d is from the group `%s` to the group `%s`, and there is no such group", i+1, link.From, link.To)
		}
		r := row{Shape{Shape: link.Shape}, prefix + bucket(link, i)}
		if err := r.shape.check(); err != nil {
			return layer{}, fmt.Errorf("the link from `%s` to `%s`: %w", link.From, link.To, err)
		}
		l.rows[pair{from, to}] = append(l.rows[pair{from, to}], r)
	}
	return l, nil
}

// bucket is what the bandwidth of a link is shared by: its row, which may have become several links.
func bucket(link pipelines.Link, i int) string {
	if link.Row > 0 {
		return fmt.Sprintf("row %d", link.Row)
	}
	return fmt.Sprintf("link %d", i+1)
}

// lay puts the layer over what there is of a path between groups.
func (l *layer) lay(p *Path, between pair) {
	p.lay(l.fallback)
	if d, ok := l.between(between); ok {
		set(&p.Latency, &d)
	}
	for _, r := range l.rows[between] {
		p.lay(r)
	}
}

// between is what the region matrix says.
func (l *layer) between(groups pair) (pipelines.Duration, bool) {
	if l.matrix == nil {
		return 0, false
	}
	from, to := l.regions[groups.from], l.regions[groups.to]
	if from == "" || to == "" {
		return 0, false
	}
	d, ok := l.matrix[from][to]
	return d, ok
}

// check says what of a shape can't be.
func (s Shape) check() error {
	for _, d := range []struct {
		name  string
		value *pipelines.Duration
	}{{"latency", s.Latency}, {"jitter", s.Jitter}} {
		if d.value != nil && *d.value < 0 {
			return fmt.Errorf("the %s %s is less than nothing", d.name, *d.value)
		}
	}
	for _, v := range []struct {
		name  string
		value *pipelines.Share
	}{
		{"loss", s.Loss}, {"loss correlation", s.LossCorr}, {"duplicate", s.Duplicate}, {"duplicate correlation", s.DuplicateCorrelation},
		{"reorder", s.Reorder}, {"reorder correlation", s.ReorderCorrelation}, {"corrupt", s.Corrupt}, {"corrupt correlation", s.CorruptCorrelation},
	} {
		if v.value != nil && !(*v.value >= 0 && *v.value <= 1) {
			return fmt.Errorf("the share %s is %v %%, and has to be between 0 and 100 %%", v.name, float64(*v.value)*100)
		}
	}
	switch {
	case s.Bandwidth != nil && *s.Bandwidth < 0:
		return fmt.Errorf("the bandwidth %s is less than nothing", *s.Bandwidth)
	case s.Queue != nil && *s.Queue < 0:
		return fmt.Errorf("the queue of %d packets is less than nothing", *s.Queue)
	}
	if _, ok := policies[s.Policy]; !ok && s.Policy != "" {
		return fmt.Errorf("the policy `%s` is none of accept, reject, drop", s.Policy)
	}
	switch s.Distribution {
	case "", "uniform", "normal", "pareto":
		return nil
	}
	return fmt.Errorf("the distribution `%s` is none of uniform, normal, pareto", s.Distribution)
}

// Check says what of a plan's wishes can't be done, in a sentence.
func (p Plan) Check() error {
	if err := p.Default.check(); err != nil {
		return fmt.Errorf("the default shape: %w", err)
	}
	for _, r := range p.Rules {
		if !r.To.IsValid() {
			return fmt.Errorf("a rule is for no subnet")
		}
		if err := r.Shape.check(); err != nil {
			return fmt.Errorf("the rule for %s: %w", r.To, err)
		}
	}
	return nil
}
