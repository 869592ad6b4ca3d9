// Package simulated is the nodes of a cluster without machines: agents that answer as those of sidecar/node do, in this
// process, with instances that are nothing but a moment at which they end. It is for tests of what speaks with nodes, and for
// measuring it against clusters whose nodes are simulated too.
package simulated

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/groundplan/groundplan/sidecar/control"
	nodeagent "github.com/groundplan/groundplan/sidecar/node"
)

// Token is what the agents want to be told.
const Token = "simulated-agents-want-this"

// Fate is how an instance ends in a stage.
type Fate struct {
	Outcome string // control.OutcomeSucceeded and the like; empty: it succeeds
	Reason  string
	After   time.Duration
}

// Nodes are all nodes of a cluster; each is there from the moment it is first dialled. Set its functions before.
type Nodes struct {
	// Fate says how instances end; nil: they succeed at once.
	Fate func(node string, i control.Instance, ask control.RunStage) Fate
	// Network answers a request for a state of the data network; nil: it is in force.
	Network func(node string, ask control.Network) control.NetworkReply
	// Outputs are the files that an instance has written, by their paths in its folder; nil: one line in run.out.
	Outputs func(node string, i control.Instance) map[string][]byte
	// Place answers a placement before it is taken; nil, or a nil error: it is taken.
	Place func(node string, ask control.Placement) error

	mu    sync.Mutex
	nodes map[string]*node
}

// node is one node.
type node struct {
	all  *Nodes
	name string

	mu     sync.Mutex
	away   bool
	conns  map[net.Conn]bool
	accept chan net.Conn
	runs   map[string]*run
	server *http.Server
}

// Dial connects to a node's agent.
func (a *Nodes) Dial(ctx context.Context, name string) (net.Conn, error) {
	n := a.node(name)
	n.mu.Lock()
	away := n.away
	n.mu.Unlock()
	if away {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	return n.dial(ctx)
}

// Serve has other processes reach the nodes by Dialer, until the listener is closed.
func (a *Nodes) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serving simulated nodes: %w", err)
		}
		go a.pass(conn)
	}
}

// pass hands a connection to the node that its first line names.
func (a *Nodes) pass(conn net.Conn) {
	var name []byte
	for letter := make([]byte, 1); ; name = append(name, letter[0]) {
		if _, err := io.ReadFull(conn, letter); err != nil || len(name) > longestName {
			_ = conn.Close()
			return
		}
		if letter[0] == '\n' {
			break
		}
	}
	n := a.node(string(name))
	n.mu.Lock()
	away := n.away
	n.mu.Unlock()
	if away {
		_ = conn.Close()
		return
	}
	n.accept <- conn
}

// longestName bounds a node's name, in bytes.
const longestName = 253

// Dialer is Nodes.Dial for another process than the one that serves the nodes at this socket.
func Dialer(socket string) func(ctx context.Context, node string) (net.Conn, error) {
	return func(ctx context.Context, node string) (net.Conn, error) {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, err
		}
		if _, err := conn.Write([]byte(node + "\n")); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return conn, nil
	}
}

func (a *Nodes) node(name string) *node {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodes == nil {
		a.nodes = make(map[string]*node)
	}
	if a.nodes[name] == nil {
		a.nodes[name] = newNode(a, name)
	}
	return a.nodes[name]
}

func newNode(a *Nodes, name string) *node {
	n := &node{all: a, name: name, conns: make(map[net.Conn]bool), accept: make(chan net.Conn), runs: make(map[string]*run)}
	n.server = &http.Server{Handler: n.routes(), ReadHeaderTimeout: time.Minute}
	go func() { _ = n.server.Serve(&pipes{accept: n.accept, closed: make(chan struct{})}) }() // until Close
	return n
}

// Close ends all nodes.
func (a *Nodes) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.nodes {
		n.mu.Lock()
		for _, r := range n.runs {
			r.end()
		}
		n.mu.Unlock()
		_ = n.server.Close()
	}
}

// Away cuts a node off, or with false brings it back with all that it held; Forget has it lose what it held.
func (a *Nodes) Away(name string, away bool) {
	n := a.node(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away = away
	if away {
		for conn := range n.conns {
			_ = conn.Close()
		}
		clear(n.conns)
	}
}

// Forget has a node lose every run that it held.
func (a *Nodes) Forget(name string) {
	n := a.node(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, r := range n.runs {
		r.end()
		delete(n.runs, id)
	}
}

// Runs are the runs that any node holds, as run → how many nodes.
func (a *Nodes) Runs() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string]int)
	for _, n := range a.nodes {
		n.mu.Lock()
		for id := range n.runs {
			all[id]++
		}
		n.mu.Unlock()
	}
	return all
}

// Placement is what a node was asked last to hold of a run.
func (a *Nodes) Placement(name, run string) (control.Placement, bool) {
	r := a.node(name).find(run)
	if r == nil {
		return control.Placement{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ask, true
}

func (n *node) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case n.accept <- there:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[here] = true
	return here, nil
}

func (n *node) find(run string) *run {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runs[run]
}

// address is made of the node's name, and as unlike others' as that.
func (n *node) address() netip.Addr {
	hash := uint32(2166136261)
	for _, b := range []byte(n.name) {
		hash = (hash ^ uint32(b)) * 16777619
	}
	return netip.AddrFrom4([4]byte{198, 18, byte(hash >> 8), byte(hash)})
}

func (n *node) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/node", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, nodeagent.Info{Name: n.name, Address: n.address(), Version: "simulated", Runs: []nodeagent.Run{}}, nil)
	})
	mux.HandleFunc("PUT /v1/runs/{run}", func(w http.ResponseWriter, r *http.Request) {
		status, err := n.ensure(r.PathValue("run")).Status(r.Context())
		answer(w, status, err)
	})
	mux.HandleFunc("DELETE /v1/runs/{run}", func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		if held := n.runs[r.PathValue("run")]; held != nil {
			held.end()
			delete(n.runs, r.PathValue("run"))
		}
		n.mu.Unlock()
		answer(w, struct{}{}, nil)
	})
	mux.HandleFunc("GET /v1/runs/{run}/archive", n.archive)
	mux.HandleFunc("/v1/runs/{run}/control/", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("run")
		held := n.find(id)
		if held == nil {
			answer(w, nil, control.Refuse(http.StatusBadGateway, "run %s has no sidecar on node %s", id, n.name))
			return
		}
		http.StripPrefix("/v1/runs/"+id+"/control", held.proxy).ServeHTTP(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+Token {
			answer(w, nil, control.Refuse(http.StatusUnauthorized, "the token is not the agent's"))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, reply any, err error) {
	var refused *control.Error
	switch {
	case errors.As(err, &refused):
		w.WriteHeader(refused.Status)
		reply = map[string]string{"error": refused.Message}
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
		reply = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(reply) // whoever has gone doesn't listen
}

// ensure has a sidecar for a run.
func (n *node) ensure(id string) *run {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.runs[id] == nil {
		n.runs[id] = newRun(n, id)
	}
	return n.runs[id]
}

// serve makes a run answer calls, and returns what passes them on to it.
func (r *run) serve() *httputil.ReverseProxy {
	var ctx context.Context
	ctx, r.end = context.WithCancel(context.Background())
	listener := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
	server := &control.Server{Backend: r, Log: discard}
	go func() { _ = server.Serve(ctx, listener) }() // until end
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(&url.URL{Scheme: "http", Host: "sidecar"}) },
		Transport: &http.Transport{DialContext: func(dialing context.Context, _, _ string) (net.Conn, error) {
			here, there := net.Pipe()
			select {
			case listener.accept <- there:
				return here, nil
			case <-ctx.Done():
				return nil, fmt.Errorf("the sidecar has ended: %w", syscall.ECONNREFUSED)
			case <-dialing.Done():
				return nil, dialing.Err()
			}
		}},
		ErrorLog: quiet,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			answer(w, nil, control.Refuse(http.StatusBadGateway, "the sidecar doesn't answer: %v", err))
		},
	}
}

// pipes is a listener whose connections come from this process.
type pipes struct {
	accept chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accept:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "simulated", Net: "unix"} }
