// Package retention decides which runs, turns of suites and artifacts of a home may go, and removes them. Deciding is
// pure: facts and a policy go in, and what goes, and why all else stays, comes out.
package retention

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy says what may go. A bound that is zero takes nothing.
type Policy struct {
	// Age is how long ago a run may have ended.
	Age time.Duration `json:"age,omitempty"`
	// Runs is how many runs of each pipeline stay, the newest ones. A matrix is one with its cells.
	Runs int `json:"runs,omitempty"`
	// Size is how many bytes runs and artifacts may take together; the oldest runs go first.
	Size int64 `json:"size,omitempty"`
}

const (
	// Grace is how long whatever has changed stays, whatever the policy says: somebody may be about to use it.
	Grace = time.Hour
	// Turns is how many turns of each suite stay, with their runs: the newest ones.
	Turns = 10
)

// Run is what is known of a run.
type Run struct {
	ID       string
	Pipeline string
	// Parent is the matrix that the run is a cell of; empty for all others.
	Parent string
	// From is the run that it took results over from.
	From string
	// Underway says that it runs or holds, or may do so once services are up again.
	Underway bool
	Started  time.Time
	Ended    time.Time
	// Changed is when something in its folder was last changed.
	Changed time.Time
	Bytes   int64
	// Artifacts are the digests of those that it was made with.
	Artifacts []string

	// Kind is what it has in common with the runs that it can be compared with. Compared says that it is one that others
	// are compared with: it passed and has metrics.
	Kind     string
	Compared bool
	// Compares is how many runs before it this one's pipeline compares with, 0 for none; With is one that it names.
	Compares int
	With     string
}

// Turn is what is known of a turn of a suite.
type Turn struct {
	Suite, ID string
	Started   time.Time
	Ended     time.Time
	Underway  bool
	Runs      []string
	Bytes     int64
}

// Artifact is what is known of something built.
type Artifact struct {
	Digest string
	// Used is when it was last built or asked for.
	Used  time.Time
	Bytes int64
}

// Facts are all that there is to decide about.
type Facts struct {
	Now       time.Time
	Runs      []Run
	Turns     []Turn
	Artifacts []Artifact
}

// Decision is what becomes of one thing, and why.
type Decision struct {
	// Name is a run's id, a turn's `suite/id` or an artifact's digest.
	Name string `json:"name"`
	// Pipeline is a run's.
	Pipeline string `json:"pipeline,omitempty"`
	Goes     bool   `json:"goes"`
	Why      string `json:"why"`
	Bytes    int64  `json:"bytes"`
}

// Plan is what becomes of everything.
type Plan struct {
	Runs      []Decision `json:"runs"`
	Turns     []Decision `json:"turns"`
	Artifacts []Decision `json:"artifacts"`
}

// Frees is how many bytes go.
func (p Plan) Frees() (bytes int64) {
	for _, list := range [][]Decision{p.Runs, p.Turns, p.Artifacts} {
		for _, d := range list {
			if d.Goes {
				bytes += d.Bytes
			}
		}
	}
	return bytes
}

// Decide says what goes. Whatever the policy, these stay: runs under way or holding, and those that they took results
// over from; what changed within Grace; the newest Turns of each suite and their runs; the runs that the newest run of its
// kind compares with, and that one itself, since the next one will; artifacts that a run names which stays. A matrix and
// its cells stay or go together.
func Decide(f Facts, p Policy) Plan {
	d := deciding{facts: f, policy: p, families: families(f.Runs), newest: newest(f.Turns), safe: map[string]string{}, goes: map[string]string{}}
	d.protect()
	d.byAge()
	d.byCount()
	d.bySize()
	return d.plan()
}

// family is a run, or a matrix with its cells.
type family struct {
	head    Run
	members []Run
	bytes   int64
}

// ended is when the last of a family did.
func (f *family) ended() (last time.Time) {
	for _, r := range f.members {
		end := r.Ended
		if end.IsZero() {
			end = r.Changed
		}
		if end.After(last) {
			last = end
		}
	}
	return last
}

// families puts runs together, the newest first.
func families(all []Run) []*family {
	byID := map[string]*family{}
	var list []*family
	heads := map[string]bool{}
	for _, r := range all {
		heads[r.ID] = r.Parent == ""
	}
	for _, cells := range []bool{false, true} { // heads before cells
		for _, r := range all {
			cell := r.Parent != "" && heads[r.Parent]
			if cell != cells {
				continue
			}
			f := byID[r.Parent]
			if !cell {
				f = &family{head: r}
				byID[r.ID] = f
				list = append(list, f)
			}
			f.members = append(f.members, r)
			f.bytes += r.Bytes
		}
	}
	slices.SortStableFunc(list, func(a, b *family) int {
		return cmp.Or(b.head.Started.Compare(a.head.Started), strings.Compare(a.head.ID, b.head.ID))
	})
	return list
}

// deciding is a decision on its way.
type deciding struct {
	facts    Facts
	policy   Policy
	families []*family
	newest   map[string]bool // the newest turns of each suite, as `suite/id`
	// safe is run → why it stays whatever the policy, and goes is head of a family → why it goes.
	safe map[string]string
	goes map[string]string
}

// stays notes why a run stays; the first reason counts.
func (d *deciding) stays(id, why string, args ...any) {
	if d.safe[id] == "" {
		d.safe[id] = fmt.Sprintf(why, args...)
	}
}

func (d *deciding) protect() {
	for _, r := range d.facts.Runs {
		if r.Underway {
			d.stays(r.ID, "it is under way")
		}
	}
	for _, r := range d.facts.Runs {
		if r.Underway && r.From != "" {
			d.stays(r.From, "run %s takes over what it came to", r.ID)
		}
		if d.facts.Now.Sub(r.Changed) < Grace {
			d.stays(r.ID, "it was changed within the last %v", Grace)
		}
	}
	for _, t := range d.facts.Turns {
		if d.turnStays(t) != "" {
			for _, id := range t.Runs {
				d.stays(id, "the suite %s has it in one of its newest turns", t.Suite)
			}
		}
	}
	d.protectCompared()
	for _, f := range d.families { // one for all
		for _, r := range f.members {
			if why := d.safe[r.ID]; why != "" && r.ID != f.head.ID {
				d.stays(f.head.ID, "its cell %s stays: %s", r.ID, why)
			}
		}
	}
}

// newest are the newest Turns turns of each suite.
func newest(turns []Turn) map[string]bool {
	turns = slices.Clone(turns)
	slices.SortFunc(turns, func(a, b Turn) int { return cmp.Or(b.Started.Compare(a.Started), strings.Compare(b.ID, a.ID)) })
	seen, found := map[string]int{}, map[string]bool{}
	for _, t := range turns {
		if seen[t.Suite]++; seen[t.Suite] <= Turns {
			found[t.name()] = true
		}
	}
	return found
}

func (t Turn) name() string { return t.Suite + "/" + t.ID }

// turnStays is why a turn stays whatever the policy.
func (d *deciding) turnStays(t Turn) string {
	switch {
	case t.Underway:
		return "it is under way"
	case d.newest[t.name()]:
		return fmt.Sprintf("it is among the %d newest turns of its suite", Turns)
	}
	return ""
}

// protectCompared has those stay that runs are compared with.
func (d *deciding) protectCompared() {
	byKind := map[string][]Run{}
	for _, r := range d.facts.Runs {
		byKind[r.Kind] = append(byKind[r.Kind], r)
	}
	for _, of := range byKind {
		slices.SortStableFunc(of, func(a, b Run) int { return b.Started.Compare(a.Started) })
		newest := of[0]
		if newest.With != "" {
			d.stays(newest.With, "run %s compares with it", newest.ID)
		}
		want := newest.Compares
		var with []string
		for _, r := range of[1:] {
			if len(with) < want && r.Compared {
				with = append(with, r.ID)
			}
		}
		for _, id := range with {
			d.stays(id, "run %s compares with it", newest.ID)
		}
		if len(with) > 0 {
			d.stays(newest.ID, "the next run like it compares with it")
		}
	}
}

func (d *deciding) byAge() {
	if d.policy.Age <= 0 {
		return
	}
	for _, f := range d.families {
		if age := d.facts.Now.Sub(f.ended()); age > d.policy.Age && d.free(f) {
			d.goes[f.head.ID] = fmt.Sprintf("it ended %s ago", days(age))
		}
	}
}

// days writes a long time.
func days(t time.Duration) string {
	if t < 48*time.Hour {
		return t.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(t.Hours()/24))
}

func (d *deciding) byCount() {
	if d.policy.Runs <= 0 {
		return
	}
	seen := map[string]int{}
	for _, f := range d.families { // the newest first
		if seen[f.head.Pipeline]++; seen[f.head.Pipeline] > d.policy.Runs && d.free(f) {
			d.goes[f.head.ID] = fmt.Sprintf("%s has %d newer ones", f.head.Pipeline, d.policy.Runs)
		}
	}
}

// free says whether nothing keeps a family, and nothing has taken it yet.
func (d *deciding) free(f *family) bool {
	return d.safe[f.head.ID] == "" && d.goes[f.head.ID] == ""
}

func (d *deciding) bySize() {
	if d.policy.Size <= 0 {
		return
	}
	total := int64(0)
	for _, f := range d.families {
		if d.goes[f.head.ID] == "" {
			total += f.bytes
		}
	}
	for _, a := range d.artifacts() {
		if !a.Goes {
			total += a.Bytes
		}
	}
	for _, f := range slices.Backward(d.families) {
		if total <= d.policy.Size {
			return
		}
		if !d.free(f) {
			continue
		}
		before := kept(d.artifacts())
		d.goes[f.head.ID] = "there is more than may be kept, and it is the oldest"
		total -= f.bytes + before - kept(d.artifacts())
	}
}

func kept(list []Decision) (bytes int64) {
	for _, a := range list {
		if !a.Goes {
			bytes += a.Bytes
		}
	}
	return bytes
}

// artifacts decides about what was built, by the runs that stay.
func (d *deciding) artifacts() []Decision {
	named := map[string]string{}
	used := d.facts.Now.Add(-Grace) // what was used since then stays
	for _, f := range d.families {
		for _, r := range f.members {
			if r.Underway && r.Started.Before(used) {
				used = r.Started // it may have been given artifacts that its record doesn't name yet
			}
			if d.goes[f.head.ID] == "" {
				for _, digest := range r.Artifacts {
					named[digest] = cmp.Or(named[digest], r.ID)
				}
			}
		}
	}
	list := make([]Decision, 0, len(d.facts.Artifacts))
	for _, a := range d.facts.Artifacts {
		decision := Decision{Name: a.Digest, Bytes: a.Bytes}
		switch {
		case named[a.Digest] != "":
			decision.Why = fmt.Sprintf("run %s was made with it", named[a.Digest])
		case !a.Used.Before(used):
			decision.Why = "it was used a short time ago, or by a run under way"
		default:
			decision.Goes, decision.Why = true, "no run that stays was made with it"
		}
		list = append(list, decision)
	}
	return list
}

// plan says what becomes of everything.
func (d *deciding) plan() Plan {
	p := Plan{Runs: []Decision{}, Turns: []Decision{}, Artifacts: d.artifacts()}
	stay := map[string]bool{}
	for _, f := range d.families {
		why, goes := d.goes[f.head.ID]
		for _, r := range f.members {
			decision := Decision{Name: r.ID, Pipeline: r.Pipeline, Bytes: r.Bytes, Goes: goes, Why: why}
			if !goes {
				stay[r.ID] = true
				decision.Why = cmp.Or(d.safe[r.ID], d.safe[f.head.ID], "nothing takes it")
			}
			p.Runs = append(p.Runs, decision)
		}
	}
	for _, t := range d.facts.Turns {
		p.Turns = append(p.Turns, d.turn(t, stay))
	}
	return p
}

// turn decides about a turn of a suite: a small record, which goes by its age alone, and not before its runs.
func (d *deciding) turn(t Turn, stay map[string]bool) Decision {
	decision := Decision{Name: t.name(), Bytes: t.Bytes, Why: d.turnStays(t)}
	i := slices.IndexFunc(t.Runs, func(id string) bool { return stay[id] })
	age := d.facts.Now.Sub(t.Ended)
	switch {
	case decision.Why != "":
	case i >= 0:
		decision.Why = fmt.Sprintf("its run %s stays", t.Runs[i])
	case d.policy.Age > 0 && age > d.policy.Age:
		decision.Goes, decision.Why = true, fmt.Sprintf("it ended %s ago", days(age))
	default:
		decision.Why = "nothing takes it"
	}
	return decision
}
