package simulated

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/groundplan/groundplan/sidecar/control"
	nodeagent "github.com/groundplan/groundplan/sidecar/node"
)

var (
	discard = slog.New(slog.DiscardHandler)
	quiet   = log.New(io.Discard, "", 0)
)

// run is a run's sidecar on one node.
type run struct {
	node  *node
	id    string
	proxy *httputil.ReverseProxy
	end   context.CancelFunc

	mu      sync.Mutex
	started time.Time
	ask     control.Placement
	here    []control.Instance // those of ask on this node
	pods    map[int]string     // slot → UID of those that were placed
	network control.Network
	stages  map[string]*stage
	rows    map[string][]control.Instance // stage → how its instances ended
}

var _ control.Backend = (*run)(nil)

func newRun(n *node, id string) *run {
	r := &run{node: n, id: id, started: time.Now(), pods: map[int]string{}, stages: map[string]*stage{}, rows: map[string][]control.Instance{}}
	r.proxy = r.serve()
	return r
}

// stage is one opening of the gate on a node. It is guarded by its run's mu.
type stage struct {
	status  control.RunStatus
	open    map[string]bool // instances that run
	changed chan struct{}   // closed at the next change
}

// Place takes the instances on this node over.
func (r *run) Place(_ context.Context, ask control.Placement) (control.Status, error) {
	if refuse := r.node.all.Place; refuse != nil {
		if err := refuse(r.node.name, ask); err != nil {
			return control.Status{}, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ask.Node == nil || ask.Node.Name != r.node.name {
		return control.Status{}, control.Refuse(http.StatusBadRequest, "this is node %s", r.node.name)
	}
	var seats []control.Instance
	for _, g := range ask.All {
		for index := range g.Instances {
			seats = append(seats, control.Instance{Group: g.Name, Index: index})
		}
	}
	r.ask, r.here = ask, nil
	added, kept, placed := 0, 0, map[int]string{}
	for _, pod := range ask.Node.Pods {
		r.here = append(r.here, seats[pod.Slot])
		if placed[pod.Slot] = pod.UID; r.pods[pod.Slot] == pod.UID {
			kept++
		} else {
			added++
		}
	}
	r.pods = placed
	status := r.status()
	status.New, status.Kept = added, kept
	return status, nil
}

func (r *run) status() control.Status {
	s := control.Status{Run: r.id, Started: r.started, Groups: map[string]control.Counts{}}
	for _, i := range r.here {
		c := s.Groups[i.Group]
		c.Total, c.Placed = c.Total+1, c.Placed+1
		s.Groups[i.Group] = c
	}
	return s
}

// Network answers as its Nodes say.
func (r *run) Network(_ context.Context, ask control.Network) (control.NetworkReply, error) {
	r.mu.Lock()
	r.network = ask
	r.mu.Unlock()
	if say := r.node.all.Network; say != nil {
		return say(r.node.name, ask), nil
	}
	return control.NetworkReply{}, nil
}

// Open lets the instances of a stage run.
func (r *run) Open(_ context.Context, key string, ask control.RunStage) (control.RunStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.stages[key]; s != nil {
		return s.status, nil
	}
	s := &stage{open: map[string]bool{}, changed: make(chan struct{})}
	s.status = control.RunStatus{Key: key, Version: 1, Started: time.Now(), Groups: map[string]control.Counts{}}
	r.stages[key] = s
	for _, i := range r.here {
		if !slices.Contains(ask.Groups, i.Group) {
			continue
		}
		i.Stage, i.Attempt, i.Started = ask.Stage, key, s.status.Started
		count(s, i.Group, control.Counts{Total: 1, Placed: 1, Running: 1})
		s.open[fmt.Sprintf("%s/%d", i.Group, i.Index)] = true
		fate := Fate{}
		if r.node.all.Fate != nil {
			fate = r.node.all.Fate(r.node.name, i, ask)
		}
		if fate.Outcome == "" {
			fate.Outcome = control.OutcomeSucceeded
		}
		time.AfterFunc(fate.After, func() { r.ended(s, i, fate, ask) })
	}
	r.concluded(s)
	if wait := time.Until(ask.Deadline); !ask.Deadline.IsZero() {
		time.AfterFunc(wait, func() { r.cut(s, func(s *control.RunStatus) { s.TimedOut = true }) })
	}
	return copied(s), nil
}

// count adds to the counts of a group.
func count(s *stage, group string, more control.Counts) {
	c := s.status.Groups[group]
	c.Total, c.Placed, c.Running = c.Total+more.Total, c.Placed+more.Placed, c.Running+more.Running
	c.Succeeded, c.Failed, c.Crashed, c.Silent, c.Killed = c.Succeeded+more.Succeeded, c.Failed+more.Failed, c.Crashed+more.Crashed, c.Silent+more.Silent, c.Killed+more.Killed
	s.status.Groups[group] = c
}

// ended takes down how an instance ended.
func (r *run) ended(s *stage, i control.Instance, fate Fate, ask control.RunStage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := fmt.Sprintf("%s/%d", i.Group, i.Index)
	if !s.open[name] {
		return
	}
	delete(s.open, name)
	i.Ended, i.Outcome, i.Reason = time.Now(), fate.Outcome, fate.Reason
	r.rows[i.Stage] = append(r.rows[i.Stage], i)
	by := control.Counts{Running: -1}
	switch fate.Outcome {
	case control.OutcomeSucceeded:
		by.Succeeded = 1
	case control.OutcomeKilled:
		by.Killed = 1
	default:
		by.Failed = 1
		s.status.Failing = append(s.status.Failing, name)
		s.status.Failing = s.status.Failing[:min(len(s.status.Failing), 10)]
		if s.status.FirstFailure == nil {
			s.status.FirstFailure = &i
		}
	}
	count(s, i.Group, by)
	if s.status.FirstFailure != nil && ask.FailFast && s.status.Groups[i.Group].Failed > ask.MaxFailures {
		s.status.FailedFast = true
		r.stop(s)
	}
	r.concluded(s)
}

// concluded wakes whoever waits, and closes a stage without open instances.
func (r *run) concluded(s *stage) {
	if len(s.open) == 0 && !s.status.Done {
		s.status.Done, s.status.Ended = true, time.Now()
	}
	s.status.Version++
	close(s.changed)
	s.changed = make(chan struct{})
}

// stop ends what still runs of a stage.
func (r *run) stop(s *stage) {
	for name := range s.open {
		group, _, _ := strings.Cut(name, "/")
		count(s, group, control.Counts{Running: -1, Failed: 1})
		s.status.Unfinished++
		delete(s.open, name)
	}
}

func (r *run) cut(s *stage, mark func(*control.RunStatus)) control.RunStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !s.status.Done {
		mark(&s.status)
		r.stop(s)
		r.concluded(s)
	}
	return copied(s)
}

// copied is a status that doesn't change under its reader.
func copied(s *stage) control.RunStatus {
	status := s.status
	status.Groups, status.Failing = maps.Clone(status.Groups), slices.Clone(status.Failing)
	return status
}

func (r *run) find(key string) (*stage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.stages[key]; s != nil {
		return s, nil
	}
	return nil, control.Refuse(http.StatusNotFound, "no stage %s was opened", key)
}

// Wait returns how a stage stands.
func (r *run) Wait(ctx context.Context, key string, since int64, wait time.Duration) (control.RunStatus, error) {
	s, err := r.find(key)
	if err != nil {
		return control.RunStatus{}, err
	}
	late := time.After(wait)
	for {
		r.mu.Lock()
		status, changed := copied(s), s.changed
		r.mu.Unlock()
		if status.Done || status.Version > since {
			return status, nil
		}
		select {
		case <-changed:
		case <-late:
			return status, nil
		case <-ctx.Done():
			return status, ctx.Err()
		}
	}
}

// Halt ends a stage.
func (r *run) Halt(_ context.Context, key string) (control.RunStatus, error) {
	s, err := r.find(key)
	if err != nil {
		return control.RunStatus{}, err
	}
	return r.cut(s, func(s *control.RunStatus) { s.Halted = true }), nil
}

// HaltAll ends every stage.
func (r *run) HaltAll(ctx context.Context) (control.Status, error) {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.stages))
	r.mu.Unlock()
	for _, s := range all {
		r.cut(s, func(s *control.RunStatus) { s.Halted = true })
	}
	return r.Status(ctx)
}

// Status returns what this node holds of the run.
func (r *run) Status(context.Context) (control.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status(), nil
}

// Release is Status: the agent is what releases runs.
func (r *run) Release(ctx context.Context) (control.Status, error) { return r.Status(ctx) }

// archive has a file for each instance and the rows of all stages.
func (n *node) archive(w http.ResponseWriter, r *http.Request) {
	held := n.find(r.PathValue("run"))
	if held == nil {
		answer(w, nil, control.Refuse(http.StatusNotFound, "run %s was never on node %s", r.PathValue("run"), n.name))
		return
	}
	held.mu.Lock()
	defer held.mu.Unlock()
	out := tar.NewWriter(w)
	put := func(name string, data []byte) {
		_ = out.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data)), ModTime: held.started})
		_, _ = out.Write(data)
	}
	manifest := nodeagent.Manifest{Node: n.name}
	for _, i := range held.here {
		if r.URL.Query().Get("only") == nodeagent.OnlyRecords {
			break
		}
		name := fmt.Sprintf("%s/%d", i.Group, i.Index)
		manifest.Instances = append(manifest.Instances, name)
		for file, data := range n.outputs(i) {
			put("outputs/"+name+"/"+file, data)
		}
	}
	for name, rows := range held.rows {
		var text bytes.Buffer
		for _, row := range rows {
			_ = json.NewEncoder(&text).Encode(row)
		}
		put("stages/"+name+".jsonl", text.Bytes())
	}
	put("events.jsonl", fmt.Appendf(nil, "{\"time\":%q,\"kind\":\"sidecar-started\",\"text\":\"on %s\"}\n", held.started.Format(time.RFC3339Nano), n.name))
	put("sidecar.log", []byte("level=INFO msg=placed\n"))
	text, _ := json.Marshal(manifest)
	put(nodeagent.ManifestName, text)
	_ = out.Close()
}

// outputs are what an instance has written.
func (n *node) outputs(i control.Instance) map[string][]byte {
	if say := n.all.Outputs; say != nil {
		return say(n.name, i)
	}
	return map[string][]byte{"run.out": []byte("written on " + n.name + "\n")}
}
