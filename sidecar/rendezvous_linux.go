package sidecar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/groundplan/groundplan/sidecar/gateway"
)

// rendezvous is where the sidecars of a run's nodes exchange what each of them has found.
type rendezvous struct {
	space *gateway.Space // no instance is in it
	node  string

	mu    sync.Mutex
	nodes []string // all of them, in an order that is the same for each
	about *matter
}

// matter is what is being exchanged about. Another one ends it: who still waits for the others waits in vain.
type matter struct {
	name string
	over chan struct{}
}

// said is what a node says.
type said struct {
	Node string `json:"node"`
	Say  []byte `json:"say"`
}

func newRendezvous(g *gateway.Gateway, node string) *rendezvous {
	return &rendezvous{space: g.Space("groundplan:nodes"), node: node, about: &matter{over: make(chan struct{})}}
}

// meet says who is to be heard from now on.
func (r *rendezvous) meet(nodes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = nodes
}

// begin keeps apart what is exchanged from now on from what was before.
func (r *rendezvous) begin(about string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.about.name != about {
		close(r.about.over)
		r.about = &matter{name: about, over: make(chan struct{})}
	}
}

// Exchange says something under a name and returns what every node has said under it, in the order of the nodes, once all
// have. A sidecar that was started again in the middle of it can't go on: what it had said means nothing any more.
func (r *rendezvous) Exchange(ctx context.Context, name string, say []byte) ([][]byte, error) {
	r.mu.Lock()
	about, nodes := r.about, r.nodes
	r.mu.Unlock()
	if len(nodes) == 0 {
		return [][]byte{say}, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-about.over:
			cancel(errors.New("it is not asked for any more"))
		case <-ctx.Done():
		}
	}()
	all, err := r.hear(ctx, about.name+":"+name, nodes, say)
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("exchanging with the run's other nodes: %w", err)
	}
	return all, nil
}

// hear says something on a topic and waits until all nodes have.
func (r *rendezvous) hear(ctx context.Context, topic string, nodes []string, say []byte) ([][]byte, error) {
	text, err := json.Marshal(said{Node: r.node, Say: say})
	if err != nil {
		return nil, err
	}
	if _, err := r.space.Publish(ctx, topic, text); err != nil {
		return nil, err
	}
	heard := make(map[string][]byte, len(nodes))
	for document, err := range r.space.Subscribe(ctx, topic) {
		var one said
		if err == nil {
			err = json.Unmarshal(document, &one)
		}
		if err != nil {
			return nil, err
		}
		if _, twice := heard[one.Node]; twice {
			continue
		}
		if one.Node == r.node && !bytes.Equal(one.Say, say) {
			return nil, errors.New("this node's sidecar was started again in the middle of it")
		}
		heard[one.Node] = one.Say
		if all, complete := inOrder(nodes, heard); complete {
			return all, nil
		}
	}
	return nil, ctx.Err()
}

// inOrder is what nodes have said, in their order, once all have.
func inOrder(nodes []string, heard map[string][]byte) (all [][]byte, complete bool) {
	for _, node := range nodes {
		say, ok := heard[node]
		if !ok {
			return nil, false
		}
		all = append(all, say)
	}
	return all, true
}
