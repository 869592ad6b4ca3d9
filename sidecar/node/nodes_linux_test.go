package node_test

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/fabric/fabrictest"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
	"github.com/groundplan/groundplan/sidecar/node"
	"github.com/groundplan/groundplan/sidecar/supervisor"
	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

// agentTold is what a process in the role of an agent is told by its argument.
type agentTold struct {
	Name, State, Kubelet, Redis string
	Address                     netip.Addr
}

func testLog() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

func beAgent(args []string) error {
	var told agentTold
	if err := json.Unmarshal([]byte(args[0]), &told); err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(node.Port)))
	if err != nil {
		return err
	}
	agent, err := node.New(node.Options{
		Name: told.Name, Address: told.Address, State: told.State, Kubelet: told.Kubelet, Redis: told.Redis, Token: token,
		Command: []string{"/proc/self/exe"}, Env: launchtest.Environment(roleSidecar), Log: testLog(),
	})
	if err != nil {
		return err
	}
	return agent.Serve(context.Background(), l)
}

func beSidecar([]string) error {
	ctx, told, err := node.Attend(context.Background(), os.Stdin)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { time.AfterFunc(4*time.Second, func() { os.Exit(1) }) })
	return sidecar.Main(ctx, sidecar.Config{
		Folder: runs.Folder(told.Folder), Seed: told.Seed, Redis: told.Redis, Log: testLog(),
		Node: &sidecar.Node{Name: told.Node, Address: told.Address, Kubelet: told.Kubelet, Folder: "-"},
	})
}

// beSupervisor is the first process of a pod: in namespaces of its own, but for the files that it sees.
func beSupervisor(args []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(args[0])); err != nil {
		return err
	}
	return supervisor.Run()
}

// cluster is three nodes with an agent each, and pods without anything in them.
type cluster struct {
	*fabrictest.Cluster
	t     *testing.T
	redis *outage
	nodes []*machine
}

// machine is a node.
type machine struct {
	*fabrictest.Node
	t     *testing.T
	told  agentTold
	agent *exec.Cmd
	*node.Client
	pods        []control.Pod
	supervisors map[int]*exec.Cmd // by slot
}

// inCluster has a test work with a cluster of its own, as root of namespaces of its own.
func inCluster(t *testing.T, perNode int, work func(c *cluster)) {
	launchtest.Options{Root: true}.InSidecar(t, func(t *testing.T) {
		c := &cluster{Cluster: fabrictest.Bare(t, fabrictest.Options{Nodes: 3, PerNode: perNode}), t: t}
		c.redis = startRedis(t, c.Nodes[0])
		dir, err := os.MkdirTemp("/tmp", "gp") // not t.TempDir: sockets' paths are short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		for i, n := range c.Nodes {
			m := &machine{Node: n, t: t, supervisors: map[int]*exec.Cmd{}, told: agentTold{
				Name: fmt.Sprint("node-", i), Address: n.Address, State: filepath.Join(dir, fmt.Sprint("s", i)),
				Kubelet: filepath.Join(dir, fmt.Sprint("k", i)), Redis: c.redis.url,
			}}
			c.nodes = append(c.nodes, m)
			m.startAgent()
			for _, slot := range n.Slots {
				m.startPod(slot)
			}
		}
		t.Cleanup(c.logs)
		work(c)
	})
}

// logs shows what the sidecars said where a test has failed.
func (c *cluster) logs() {
	if !c.t.Failed() {
		return
	}
	for _, m := range c.nodes {
		for _, name := range []string{"sidecar.log", "events.jsonl"} {
			found, _ := filepath.Glob(filepath.Join(m.told.State, "runs", "*", name))
			for _, path := range found {
				text, _ := os.ReadFile(path)
				c.t.Logf("%s:\n%s", path, text[max(0, len(text)-6000):])
			}
		}
	}
}

// start starts a process of this program in a network namespace.
func (m *machine) start(namespace *os.File, cmd *exec.Cmd) {
	m.t.Helper()
	err := fabrictest.OnThread(func() error {
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) startAgent() {
	m.t.Helper()
	told, err := json.Marshal(m.told)
	if err != nil {
		m.t.Fatal(err)
	}
	m.agent = exec.Command("/proc/self/exe", string(told))
	m.agent.Env, m.agent.Stdout, m.agent.Stderr = launchtest.Environment(roleAgent), os.Stdout, os.Stderr
	m.start(m.Host, m.agent)
	if m.Client == nil {
		m.Client = node.Dial(m.dial, token)
	}
	m.t.Cleanup(func() { m.Close() })
	insist(m.t, func() error { _, err := m.info(); return err })
}

// info asks the agent for what it says of its node.
func (m *machine) info() (node.Info, error) { return m.Client.Node(m.t.Context()) }

// dial connects to the agent as port-forward does: from the node's own network.
func (m *machine) dial(ctx context.Context) (conn net.Conn, err error) {
	return conn, fabrictest.OnThread(func() error {
		if err := unix.Setns(int(m.Host.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(node.Port)))
		return err
	})
}

// kill kills the agent, and with it the sidecars, as a node's failure does.
func (m *machine) kill(signal syscall.Signal, sidecarsToo bool) {
	m.t.Helper()
	info, err := m.info()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.agent.Process.Signal(signal); err != nil {
		m.t.Fatal(err)
	}
	for _, r := range info.Runs {
		if sidecarsToo && r.PID > 0 {
			_ = syscall.Kill(r.PID, signal) // it may have ended with the agent
		}
	}
	_ = m.agent.Wait()
}

// startPod starts a pod for a slot: a supervisor in namespaces of its own. A second one has the place of the first.
func (m *machine) startPod(slot int) {
	m.t.Helper()
	pod := control.Pod{Slot: slot, UID: fmt.Sprint("u", slot), Name: fmt.Sprint("pod-", slot)}
	if before, again := m.supervisors[slot]; again {
		_ = before.Process.Kill()
		m.Replace(slot)
		pod.UID += "again"
		m.pods = slices.DeleteFunc(m.pods, func(p control.Pod) bool { return p.Slot == slot })
	}
	m.pods = append(m.pods, pod)
	folder := filepath.Join(m.told.Kubelet, "pods", pod.UID, "volumes", "kubernetes.io~empty-dir", "groundplan")
	for _, name := range []string{wire.Outputs, wire.Temp} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o777); err != nil {
			m.t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe", pod.Name)
	cmd.Env = append(launchtest.Environment(roleSupervisor), supervisor.FolderVariable+"="+folder)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS}
	m.start(m.Pods[slot], cmd)
	m.supervisors[slot] = cmd
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _ = cmd.Wait(); m.t.Context().Err() == nil {
			fmt.Fprintln(os.Stderr, time.Now(), pod.Name, "has ended:", cmd.ProcessState)
		}
	}()
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if <-ended; cmd.ProcessState.ExitCode() != -1 {
			m.t.Errorf("%s has ended: %v", pod.Name, cmd.ProcessState)
		}
	})
}

// insist does something again while nobody answers.
func insist(t testing.TB, do func() error) {
	t.Helper()
	limit := time.Now().Add(time.Minute)
	for {
		err := do()
		if err == nil {
			return
		}
		if !errors.Is(err, control.ErrAway) || time.Now().After(limit) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// onEach does something on every node at once.
func (c *cluster) onEach(do func(i int, m *machine) error) {
	c.t.Helper()
	var work errgroup.Group
	for i, m := range c.nodes {
		work.Go(func() error {
			if err := do(i, m); err != nil {
				return fmt.Errorf("%s: %w", m.told.Name, err)
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		c.t.Fatal(err)
	}
}

// groups are a and b, half of the instances each.
func (c *cluster) groups() []control.Group {
	name := ""
	for _, v := range launchtest.Environment(roleInstance) {
		if key, value, _ := strings.Cut(v, "="); value == roleInstance {
			name = key
		}
	}
	var all []control.Group
	for _, group := range []string{"a", "b"} {
		all = append(all, control.Group{Program: "/proc/self/exe", Group: pipelines.Group{
			Name: group, Instances: c.instances() / 2, Outcome: pipelines.OutcomeReport,
			Env: map[string]string{name: roleInstance, "GORACE": "atexit_sleep_ms=0"},
		}})
	}
	return all
}

func (c *cluster) instances() int {
	n := 0
	for _, m := range c.nodes {
		n += len(m.pods)
	}
	return n
}

// place has a run placed on all nodes, and returns how many instances are new there.
func (c *cluster) place(run string) int {
	c.t.Helper()
	var fresh atomic.Int64
	c.onEach(func(i int, m *machine) error {
		if _, err := m.Ensure(c.t.Context(), run, node.Ask{Seed: 7}); err != nil {
			return err
		}
		status, err := m.Control(run).Place(c.t.Context(), control.Placement{
			Run: run, Pipeline: "plan", Seed: 7, Groups: []string{"a", "b"}, All: c.groups(),
			Node: &control.Node{Name: m.told.Name, Lead: i == 0, Pods: m.pods, Nodes: c.peers()},
		})
		if err == nil && (len(status.Faults) > 0 || status.New+status.Kept != len(m.pods)) {
			err = fmt.Errorf("placed: %+v", status)
		}
		fresh.Add(int64(status.New))
		return err
	})
	return int(fresh.Load())
}

func (c *cluster) peers() []control.Peer {
	peers := slices.Clone(c.Peers)
	for i := range peers {
		peers[i].Name = c.nodes[i].told.Name
	}
	return peers
}

// open opens a stage on all nodes.
func (c *cluster) open(run, key string, ask control.RunStage) {
	c.t.Helper()
	ask.Stage, ask.Groups, ask.Deadline, ask.Seed = key, []string{"a", "b"}, time.Now().Add(2*time.Minute), 7
	c.onEach(func(_ int, m *machine) error {
		_, err := m.Control(run).Open(c.t.Context(), key, ask)
		return err
	})
}

// ended waits until a stage is over on all nodes, and sums up the counts.
func (c *cluster) ended(run, key string) (sum control.Counts) {
	c.t.Helper()
	var mu sync.Mutex
	c.onEach(func(_ int, m *machine) error {
		var status control.RunStatus
		for limit := time.Now().Add(3 * time.Minute); !status.Done; {
			next, err := m.Control(run).Wait(c.t.Context(), key, status.Version, 5*time.Second)
			switch {
			case err == nil:
				status = next
			case !errors.Is(err, control.ErrAway):
				return err
			default:
				time.Sleep(20 * time.Millisecond)
			}
			if time.Now().After(limit) {
				return fmt.Errorf("it goes on and on: %+v", status)
			}
		}
		if status.Fault != "" || status.FirstFailure != nil {
			c.t.Errorf("%s: %s, %+v", m.told.Name, status.Fault, status.FirstFailure)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, n := range status.Groups {
			sum.Total, sum.Running, sum.Succeeded, sum.Failed = sum.Total+n.Total, sum.Running+n.Running, sum.Succeeded+n.Succeeded, sum.Failed+n.Failed
		}
		return nil
	})
	return sum
}

// stage has a stage from its opening to its end, in which all succeed.
func (c *cluster) stage(run, key, name string) {
	c.t.Helper()
	began := time.Now()
	c.open(run, key, control.RunStage{Case: name})
	c.succeeded(run, key)
	c.t.Logf("stage %s took %v", key, time.Since(began))
}

func (c *cluster) succeeded(run, key string) {
	c.t.Helper()
	if sum := c.ended(run, key); sum.Succeeded != c.instances() || sum.Total != c.instances() {
		c.t.Errorf("stage %s: %+v of %d", key, sum, c.instances())
	}
}

// collect gathers all archives: what instances wrote by its path, and what became of them in a stage by their names.
func (c *cluster) collect(run, key string) (files map[string]string, results map[string]control.Instance) {
	c.t.Helper()
	files, results = map[string]string{}, map[string]control.Instance{}
	for _, m := range c.nodes {
		stream, err := m.Archive(c.t.Context(), run, node.ArchiveOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		whole := false
		for r := tar.NewReader(stream); !whole; {
			header, err := r.Next()
			if err != nil {
				c.t.Fatalf("the archive of %s: %v", m.told.Name, err)
			}
			text, err := io.ReadAll(r)
			if err != nil {
				c.t.Fatal(err)
			}
			switch {
			case header.Name == node.ManifestName:
				whole = true
			case strings.HasPrefix(header.Name, "outputs/"):
				if _, twice := files[header.Name]; twice {
					c.t.Errorf("%s is on two nodes", header.Name)
				}
				files[header.Name] = string(text)
			case header.Name == path.Join("stages", key+".jsonl"):
				c.results(m, string(text), results)
			}
		}
		stream.Close()
	}
	if len(results) != c.instances() {
		c.t.Errorf("of stage %s there are %d results of %d", key, len(results), c.instances())
	}
	return files, results
}

func (c *cluster) results(m *machine, text string, into map[string]control.Instance) {
	c.t.Helper()
	for line := range strings.Lines(text) {
		var i control.Instance
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			c.t.Fatal(err)
		}
		name := fmt.Sprintf("%s/%d", i.Group, i.Index)
		if before, twice := into[name]; twice {
			c.t.Errorf("%s has two results (%s): %+v and %+v", name, m.told.Name, before, i)
		}
		into[name] = i
	}
}

// remove has the run removed everywhere, and sees that nothing is left.
func (c *cluster) remove(run string) {
	c.t.Helper()
	c.onEach(func(_ int, m *machine) error {
		if err := m.Remove(c.t.Context(), run); err != nil {
			return err
		}
		if _, err := os.Stat(string(runs.Home(m.told.State).Run(run))); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the folder of %s is still there", run)
		}
		return nil
	})
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), "/runs/"+run+"/") {
		c.t.Errorf("something is still mounted: %v\n%s", err, mounts)
	}
}
