package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Order is what is to be pushed, and where to.
type Order struct {
	Folder runs.Folder
	// Index is an index, an alias of one, or a data stream; one that isn't there is made.
	Index string
	// Input is that of the collect stage: whose run it is, what its stages came to, when it must be over.
	Input stage.Input
}

// Outcome is what came of a push.
type Outcome struct {
	// Reason is one sentence about why not everything is there; empty: it is.
	Reason string
	// Notes are sentences that a person should read whatever came of it.
	Notes []string
}

// limits are what a push keeps to.
type limits struct {
	batchBytes, batchDocuments int
	// patience is how long nothing may be taken before the push gives up, and firstPatience how long a server may not answer
	// at all.
	patience, firstPatience time.Duration
	// leastWait and mostWait are between two tries.
	leastWait, mostWait time.Duration
	// mostRefused is how many documents may be refused while hardly any is taken.
	mostRefused int64
	// save is how often the state is written.
	save time.Duration
}

var usual = limits{
	batchBytes: 4 << 20, batchDocuments: 5000,
	patience: 2 * time.Minute, firstPatience: 30 * time.Second,
	leastWait: 200 * time.Millisecond, mostWait: 10 * time.Second,
	mostRefused: 10_000, save: time.Second,
}

// push is one try.
type push struct {
	limits
	Order
	folder   runs.Folder
	conn     *connection
	target   target
	timeline *timeline
	writer   *writer
	outputs  outputs
	groups   map[string]bool
	total    int64 // bytes of logs
	done     atomic.Int64
	state    state
	saved    time.Time
	refused  refusals
	// rolled says that an earlier try may have written into a backing index that isn't the newest any more.
	rolled bool
	pace   *pace
	report func(note string)
}

// trouble is an error that a person gets to read as the reason of the stage: it is about the server, and the outputs are
// safe.
type trouble struct{ error }

// Push brings everything of a run there. The error is non-nil when ctx is over, or when the run's own folder can't be read or
// written; whatever else is wrong is the outcome's reason, and the next Push goes on.
func (s Server) Push(ctx context.Context, order Order, report func(note string)) (Outcome, error) {
	return s.push(ctx, order, usual, report)
}

func (s Server) push(ctx context.Context, order Order, l limits, report func(note string)) (Outcome, error) {
	p := &push{limits: l, Order: order, folder: order.Folder, report: report, groups: map[string]bool{}, refused: refusals{path: order.Folder.Refused(order.Index)}}
	p.pace = newPace(l, p.tell)
	conn, err := s.connect(p.pace)
	if err != nil {
		return Outcome{Reason: fmt.Sprintf("the logs can't be pushed: %v", err)}, nil
	}
	defer conn.close()
	p.conn = conn
	bounded, cancel := context.WithDeadlineCause(ctx, beforeDeadline(order.Input.Deadline), errNoTime)
	defer cancel()
	err = p.all(bounded)
	if ctx.Err() != nil {
		return Outcome{}, context.Cause(ctx)
	}
	if bounded.Err() != nil && err != nil {
		err = trouble{errNoTime}
	}
	var t trouble
	if err != nil && !errors.As(err, &t) {
		return Outcome{}, fmt.Errorf("pushing the logs to Elasticsearch: %w", err)
	}
	return p.outcome(err), nil
}

var errNoTime = errors.New("the stage's timeout came before its end")

// beforeDeadline leaves the stage some time to say what came of it.
func beforeDeadline(deadline time.Time) time.Time {
	if deadline.IsZero() {
		return time.Now().Add(time.Hour)
	}
	return deadline.Add(-min(20*time.Second, time.Until(deadline)/10))
}

// all does one thing after the other. Only the state's owner, the goroutine that commits, writes it.
func (p *push) all(ctx context.Context) error {
	if err := p.begin(); err != nil {
		return err
	}
	if p.outputs.root != nil {
		defer p.outputs.root.Close()
	}
	if err := p.prepare(ctx); err != nil {
		return err
	}
	err := errors.Join(p.send(ctx), p.refused.close())
	if err := p.save(); err != nil {
		return err
	}
	return err
}

// begin reads what the run's folder holds.
func (p *push) begin() error {
	log, err := p.folder.ReadEvents()
	if err != nil {
		return err
	}
	t := newTimeline(log, p.Input.Stages)
	p.timeline, p.writer = &t, newWriter(p.Input.Run, p.Input.Pipeline, &t)
	for _, g := range p.Input.Groups {
		p.groups[g.Name] = true
	}
	p.outputs.root, err = os.OpenRoot(filepath.Join(string(p.folder), "outputs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no instance ever was
	}
	if err != nil {
		return err
	}
	return p.outputs.walk(func(_ string, size int64) error { p.total += size; return nil })
}

// prepare finds out what is there, and what is still to be done.
func (p *push) prepare(ctx context.Context) error {
	var err error
	if p.target, err = p.conn.prepare(ctx, p.Index); err != nil {
		return asTrouble(ctx, err)
	}
	p.pace.taken()
	if p.state, err = readState(p.folder, p.conn.host, p.Index, outputsOf(p.Input.Stages)); err != nil {
		return err
	}
	switch before := p.state.Identity; {
	case before == p.target.identity:
	case p.target.stream && slices.Contains(p.target.backing, before):
		p.rolled = true
	case before != "":
		p.state.rewind() // what was there is gone
		p.state.Refused, p.state.RefusedBytes = 0, 0
	}
	p.state.Identity = p.target.identity
	if !p.state.Logs && p.state.At.File == "" {
		// From the first line on: what is refused is refused anew.
		p.state.Refused, p.state.RefusedBytes = 0, 0
	}
	p.done.Store(p.state.Bytes)
	return nil
}

// outputsOf tells one state of the outputs from another: they change only when a run stage is tried again.
func outputsOf(results []stage.Result) string {
	var keys []string
	for _, result := range results {
		if result.Kind == pipelines.KindRun {
			keys = append(keys, stage.Key(result.Stage, result.Attempt))
		}
	}
	return strings.Join(keys, " ")
}

// send sends what was refused before, the logs from where they stand, and the rest.
func (p *push) send(ctx context.Context) error {
	if err := p.again(ctx); err != nil {
		return err
	}
	if err := p.refused.open(p.state.RefusedBytes); err != nil {
		return err
	}
	if !p.state.Logs {
		from := p.state.At
		err := p.pump(ctx, func(ctx context.Context, each func(document, position) error) error {
			return p.outputs.read(ctx, p.writer, from, each)
		}, p.commit)
		if err != nil {
			return err
		}
		p.state.Logs = true
	}
	err := p.pump(ctx, func(_ context.Context, each func(document, position) error) error {
		return p.records(func(d document) error { return each(d, position{}) })
	}, p.commit)
	if err != nil {
		return err
	}
	if err := p.same(ctx); err != nil {
		return err
	}
	p.state.Done = true
	return nil
}

// same makes sure that the index is still the one that was filled: somebody may have removed it meanwhile, and the server
// have made another.
func (p *push) same(ctx context.Context) error {
	found, err := p.conn.look(ctx, p.Index)
	if err != nil {
		return asTrouble(ctx, err)
	}
	if found == nil || found.identity != p.state.Identity && !slices.Contains(found.backing, p.state.Identity) {
		p.state.rewind()
		return trouble{errors.New("somebody removed the index while it was filled")}
	}
	return nil
}

// asTrouble is what came of asking the server something.
func asTrouble(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if t := final(err); t != nil {
		return t
	}
	return trouble{err}
}

// commit notes that a batch is done with; batches come in order.
func (p *push) commit(b *batch) error {
	if len(b.refused) > 0 {
		if err := p.refused.add(b.refused); err != nil {
			return err
		}
		if p.state.Refused == 0 {
			p.state.FirstRefusal = b.first
		}
		p.state.Refused += int64(b.refusals)
		p.state.RefusedBytes += int64(len(b.refused))
	}
	if b.at.File != "" {
		p.state.At = b.at
		p.state.Documents += int64(len(b.items))
		p.state.Bytes += b.bytes
		p.done.Store(p.state.Bytes)
	}
	p.tell("")
	if p.state.Refused > p.mostRefused && p.state.Refused*2 > p.state.Documents {
		return trouble{fmt.Errorf("it refuses most of them, and the push has stopped after %d", p.state.Refused)}
	}
	if time.Since(p.saved) < p.limits.save {
		return nil
	}
	return p.save()
}

func (p *push) save() error {
	if p.refused.file != nil {
		if err := p.refused.file.Sync(); err != nil {
			return err
		}
	}
	p.saved = time.Now()
	return runs.WriteJSON(p.folder.Push(p.Index), p.state)
}

// tell reports how far the push is, and what it waits for.
func (p *push) tell(waiting string) {
	note := fmt.Sprintf("pushing logs to Elasticsearch: %s of %s", size(p.done.Load()), size(p.total))
	if waiting != "" {
		note += "; waiting: " + waiting
	}
	p.report(note)
}
