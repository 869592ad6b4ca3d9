//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/internal/cluster/layout"
	"github.com/groundplan/groundplan/internal/golden"
)

func TestChooseBlock(t *testing.T) {
	prefixes := func(all ...string) (parsed []netip.Prefix) {
		for _, p := range all {
			parsed = append(parsed, netip.MustParsePrefix(p))
		}
		return parsed
	}
	for _, test := range []struct {
		name  string
		taken []netip.Prefix
		want  int
	}{
		{"all is free", nil, 20},
		{"another cluster has it", prefixes("172.20.255.0/30"), 21},
		{"one address of it is taken", prefixes("172.20.3.7/32", "172.21.0.0/16"), 22},
		{"a wider range", prefixes("172.20.0.0/15"), 22},
		{"elsewhere", prefixes("10.0.0.0/8", "172.17.0.0/16", "192.168.0.0/16"), 20},
		{"all is taken", prefixes("172.16.0.0/12"), 0},
	} {
		got, err := chooseBlock([]int{20, 21, 22}, test.taken)
		if got != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%s: %d, %v", test.name, got, err)
		}
	}
}

func TestPrefixOf(t *testing.T) {
	_, n, err := net.ParseCIDR("172.20.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := prefixOf(n); !ok || got != netip.MustParsePrefix("172.20.0.0/16") {
		t.Errorf("got %v, %v", got, ok)
	}
	if _, ok := prefixOf(nil); ok {
		t.Error("no network is one")
	}
}

// known is a cluster as it is kept in a folder of all clusters.
func known(t *testing.T) (base, *cluster) {
	t.Setenv("GROUNDPLAN_CLUSTER", t.TempDir())
	b, err := openBase()
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Cluster: layout.Cluster{Name: "test", Block: 20, Nodes: 3}, Password: "it's secret", folder: b.folder("test"), began: time.Now()}
	c.Places = layout.Places{Kubernetes: "/cache/kubernetes/bin", Program: "/state/bin/cluster"}
	if err := os.MkdirAll(c.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	return b, c
}

func TestState(t *testing.T) {
	b, c := known(t)
	got, err := b.load("test")
	if err != nil {
		t.Fatal(err)
	}
	if got.Cluster != c.Cluster || got.Password != c.Password || got.Places != c.Places || got.Made {
		t.Errorf("got %+v", got)
	}
	if got.stands() {
		t.Error("what has no machines stands")
	}
	info, err := os.Stat(c.path("cluster.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the password is seen by others: %v, %v", info.Mode(), err)
	}
	if _, err := b.load("other"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "up --name other") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(c.path("cluster.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.load("test"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what can't be read is taken for nothing: %v", err)
	}
}

func TestLock(t *testing.T) {
	b, _ := known(t)
	release, err := b.lock("test")
	if err != nil {
		t.Fatal(err)
	}
	locked := make(chan struct{})
	go func() {
		again, err := b.lock("test")
		if err != nil {
			t.Error(err)
			return
		}
		close(locked)
		again()
	}()
	select {
	case <-locked:
		t.Error("two have the lock")
	case <-time.After(50 * time.Millisecond):
	}
	release()
	<-locked
	if _, err := b.lock("../x"); err == nil {
		t.Error("a name that leads elsewhere is taken")
	}
}

func TestEnvironment(t *testing.T) {
	_, c := known(t)
	var text strings.Builder
	if err := c.printEnvironment(&text); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/environment.golden", strings.ReplaceAll(text.String(), c.folder, "/state"))
	output, err := exec.CommandContext(t.Context(), "sh", "-c", text.String()+`printf %s "$GROUNDPLAN_CLUSTER_REDIS"`).Output()
	if err != nil || string(output) != c.redisURL() {
		t.Errorf("a shell reads %q, %v; not %q", output, err, c.redisURL())
	}
	c.Nodes, c.Fake = 0, 100
	text.Reset()
	if err := c.printEnvironment(&text); err != nil || strings.Contains(text.String(), "REDIS") {
		t.Errorf("a cluster without nodes has a Redis: %s, %v", text.String(), err)
	}
}

func TestNamed(t *testing.T) {
	_, c := known(t)
	for _, test := range []struct {
		what    string
		names   string
		machine bool
		wrong   string
	}{
		{what: "redis", names: "redis"},
		{what: "kubelet node-2", names: "node-2.kubelet"},
		{what: "containerd node-1", names: "node-1.containerd"},
		{what: "node node-3", names: "node-3.containerd node-3.kubelet", machine: true},
		{what: "node node-4", wrong: "node-1 to node-3"},
		{what: "redis node-1", wrong: "kubelet, containerd or node"},
	} {
		names, machine, err := c.named(strings.Fields(test.what))
		if test.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%s: %v", test.what, err)
			}
			continue
		}
		if err != nil || !slices.Equal(names, strings.Fields(test.names)) || machine != test.machine {
			t.Errorf("%s: %v, %v, %v", test.what, names, machine, err)
		}
	}
}

func TestIssue(t *testing.T) {
	_, c := known(t)
	if err := os.MkdirAll(c.path("keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.issue(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.api(); err != nil {
		t.Errorf("the administrator can't come in: %v", err)
	}
	// Every file that a server is told to read must be there.
	c.Places.Keys = c.path("keys")
	first, second := c.ControlPlaneServers(c.Places)
	all := slices.Concat(first, second)
	var configured []byte
	for _, m := range c.Machines() {
		all = append(all, c.NodeServers(m, c.Places)...)
		configured = append(configured, c.NodeFiles(m, c.path("keys"))["/etc/kubernetes/kubelet.yaml"]...)
	}
	words := strings.FieldsFunc(string(configured), func(r rune) bool { return strings.ContainsRune(" \n{}", r) })
	for _, s := range all {
		words = append(words, s.Command...)
	}
	seen := 0
	for _, word := range words {
		if at := strings.Index(word, c.path("keys")); at >= 0 {
			seen++
			if _, err := os.Stat(word[at:]); err != nil {
				t.Error(err)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d files of keys are read by servers: the test looks in the wrong place", seen)
	}
}

// played is an API server that answers what is asked of it by the table.
func played(t *testing.T, answers map[string]func(w http.ResponseWriter, body map[string]any)) *api {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := answers[r.Method+" "+r.URL.Path]
		if answer == nil {
			http.Error(w, "not in the table", http.StatusNotFound)
			return
		}
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		answer(w, body)
	}))
	t.Cleanup(server.Close)
	return &api{url: server.URL, client: server.Client()}
}

func TestNodes(t *testing.T) {
	a := played(t, map[string]func(http.ResponseWriter, map[string]any){
		"GET /api/v1/nodes": func(w http.ResponseWriter, _ map[string]any) {
			_, _ = io.WriteString(w, `{"items":[
				{"metadata":{"name":"up"},"status":{"conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"True","message":"fine"}]}},
				{"metadata":{"name":"down"},"status":{"conditions":[{"type":"Ready","status":"Unknown","message":"no word"}]}},
				{"metadata":{"name":"new"}}]}`)
		},
		"GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/up": func(w http.ResponseWriter, _ map[string]any) {
			_, _ = io.WriteString(w, `{"spec":{"renewTime":"2026-11-22T22:00:00.123456Z"}}`)
		},
	})
	nodes, err := a.nodes(t.Context())
	if err != nil || len(nodes) != 3 {
		t.Fatal(nodes, err)
	}
	for name, want := range map[string]bool{"up": true, "down": false, "new": false, "missing": false} {
		if ready, why := nodes[name].ready(); ready != want || why == "" {
			t.Errorf("%s: %v, %q", name, ready, why)
		}
	}
	if at, err := a.renewed(t.Context(), "up"); err != nil || at.Minute() != 0 || at.Hour() != 22 {
		t.Errorf("renewed at %v, %v", at, err)
	}
	if _, err := a.renewed(t.Context(), "down"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v", err)
	}
}

func TestMakeFake(t *testing.T) {
	var made []string
	status := http.StatusCreated
	a := played(t, map[string]func(http.ResponseWriter, map[string]any){
		"POST /api/v1/nodes": func(w http.ResponseWriter, body map[string]any) {
			metadata := body["metadata"].(map[string]any)
			made = append(made, metadata["name"].(string))
			if metadata["annotations"].(map[string]any)[fakeTaint] != "fake" {
				t.Errorf("kwok would leave it alone: %v", metadata)
			}
			w.WriteHeader(status)
		},
	})
	if err := a.makeFake(t.Context(), "fake-0"); err != nil || !slices.Equal(made, []string{"fake-0"}) {
		t.Errorf("%v, %v", made, err)
	}
	status = http.StatusConflict
	if err := a.makeFake(t.Context(), "fake-0"); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	status = http.StatusForbidden
	if err := a.makeFake(t.Context(), "fake-0"); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("got %v", err)
	}
}

// TestWaitNamesTheLog sees that whoever waits for a server that has ended is told at once, and why.
func TestWaitNamesTheLog(t *testing.T) {
	_, c := known(t)
	for _, folder := range []string{"servers", "logs"} {
		if err := os.MkdirAll(c.path(folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(c.path("logs"), "etcd.log")
	if err := os.WriteFile(log, []byte("the disk is full\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := c.wait(t.Context(), layout.Etcd, func() error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), log) || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("got %v", err)
	}
	if err := c.wait(t.Context(), layout.Etcd, func() error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestUpRefuses(t *testing.T) {
	t.Setenv("GROUNDPLAN_CLUSTER", t.TempDir())
	if os.Geteuid() != 0 {
		if err := up(t.Context(), layout.Cluster{Name: "test", Nodes: 1}); err == nil || !strings.Contains(err.Error(), "root") {
			t.Errorf("got %v", err)
		}
		return
	}
	for name, c := range map[string]layout.Cluster{
		"too many nodes":      {Name: "test", Nodes: layout.MaxNodes + 1},
		"too many fake nodes": {Name: "test", Fake: layout.MaxFake + 1},
		"none":                {Name: "test"},
		"fewer than none":     {Name: "test", Nodes: -1, Fake: 2},
		"a bad name":          {Name: "../x", Nodes: 1},
	} {
		if err := up(t.Context(), c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestCommands(t *testing.T) {
	t.Setenv("GROUNDPLAN_CLUSTER", t.TempDir())
	for _, test := range []struct{ line, wrong string }{
		{"env", "up --name dev"},
		{"status --name x", "up --name x"},
		{"kill redis", "up --name dev"},
		{"start redis", "up --name dev"},
		{"load a b", "up --name dev"},
		{"kill", "arg"},
		{"up more", "unknown command"},
		{"nonsense", "unknown command"},
		{"down --name A", "can't name a cluster"},
	} {
		root := commands()
		root.SetArgs(strings.Fields(test.line))
		root.SetOut(io.Discard)
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%s: %v", test.line, err)
		}
	}
}

func TestEnterRefuses(t *testing.T) {
	if err := enter([]string{"one"}); err == nil {
		t.Error("too little was said, and it went on")
	}
}
