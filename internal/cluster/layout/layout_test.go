package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/groundplan/groundplan/internal/golden"
)

var example = Cluster{Name: "example", Block: 20, Nodes: 3}

func TestCheckName(t *testing.T) {
	for name, good := range map[string]bool{
		"dev": true, "a": true, "scale2": true, "abcdefghij": true,
		"": false, "abcdefghijk": false, "2nd": false, "Dev": false, "a-b": false, "a/b": false, "a b": false, "é": false,
	} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
		if link := (Cluster{Name: name}).HostLink(); good && len(link) > 15 {
			t.Errorf("%q makes the link %s, longer than the kernel takes", name, link)
		}
	}
}

func TestBlocks(t *testing.T) {
	tries := Blocks("dev")
	if !slices.Equal(tries, Blocks("dev")) {
		t.Error("the same name gives different blocks")
	}
	sorted := slices.Sorted(slices.Values(tries))
	if len(slices.Compact(sorted)) != blocks || sorted[0] != firstBlock {
		t.Errorf("not every block is tried once: %v", tries)
	}
	private := netip.MustParsePrefix("172.16.0.0/12")
	for _, block := range tries {
		if r := (Cluster{Block: block}).Range(); !private.Contains(r.Addr()) || r.Addr().As4()[1] == 17 {
			t.Errorf("block %d is %v: not private, or Docker's", block, r)
		}
	}
}

// TestAddresses sees that nobody's addresses are anybody else's, in the largest cluster too.
func TestAddresses(t *testing.T) {
	for _, nodes := range []int{0, 1, 3, MaxNodes} {
		c := Cluster{Name: "x", Block: 31, Nodes: nodes}
		taken := map[string]netip.Prefix{"services": c.Services(), "uplink": c.Uplink().Masked(), "machines": c.ControlPlane().Masked()}
		own := map[netip.Addr]string{c.ControlPlane().Addr(): "control"}
		for _, m := range c.Machines() {
			taken[m.Name] = m.Pods
			if other, there := own[m.Address.Addr()]; there {
				t.Errorf("%s and %s have the same address %v", m.Name, other, m.Address)
			}
			own[m.Address.Addr()] = m.Name
			if m.Address.Masked() != c.ControlPlane().Masked() {
				t.Errorf("%s is at %v, not among the machines", m.Name, m.Address)
			}
			if m.Pods != m.Pods.Masked() {
				t.Errorf("the pods of %s are %v, which is no prefix", m.Name, m.Pods)
			}
		}
		for a, pa := range taken {
			if !c.Range().Contains(pa.Addr()) {
				t.Errorf("%s: %v is outside %v", a, pa, c.Range())
			}
			for b, pb := range taken {
				if a != b && pa.Overlaps(pb) {
					t.Errorf("%s %v overlaps with %s %v", a, pa, b, pb)
				}
			}
		}
		for what, address := range map[string]netip.Addr{"kubernetes": c.APIService(), "dns": c.DNSService()} {
			if !c.Services().Contains(address) {
				t.Errorf("%s has %v, outside %v", what, address, c.Services())
			}
		}
		if c.Host().Masked() != c.Uplink().Masked() || c.Host().Addr() == c.Uplink().Addr() {
			t.Errorf("the host's end %v doesn't fit the other one %v", c.Host(), c.Uplink())
		}
	}
}

// TestRoutes sees that pods of any two nodes find each other, that all find the control plane, and that none leads outside.
func TestRoutes(t *testing.T) {
	way := func(m Machine, to netip.Addr) (via netip.Addr) {
		for _, route := range example.Routes(m) {
			if route.To.Contains(to) {
				return route.Via.Addr()
			}
		}
		return netip.Addr{}
	}
	for _, from := range append(example.Machines(), example.Control()) {
		for _, to := range example.Machines() {
			if got := way(from, to.Pods.Addr()); from.Name != to.Name && got != to.Address.Addr() {
				t.Errorf("%s goes to the pods of %s by %v", from.Name, to.Name, got)
			}
		}
		for _, to := range []netip.Addr{example.Registry().Addr(), example.APIService()} {
			if got := way(from, to); from.IsNode() && got != example.ControlPlane().Addr() {
				t.Errorf("%s goes to %v by %v", from.Name, to, got)
			}
		}
		for _, outside := range []netip.Addr{example.Host().Addr(), netip.MustParseAddr("1.1.1.1")} {
			if got := way(from, outside); got.IsValid() {
				t.Errorf("%s has a way to %v", from.Name, outside)
			}
		}
	}
}

func TestNodeFiles(t *testing.T) {
	files := example.NodeFiles(example.Machines()[1], "/cluster/keys")
	var all strings.Builder
	for _, path := range slices.Sorted(mapKeys(files)) {
		fmt.Fprintf(&all, "==> %s\n%s", path, files[path])
	}
	golden.Compare(t, "testdata/node-2.golden", all.String())
	if err := yaml.Unmarshal(files["/etc/kubernetes/kubelet.yaml"], new(map[string]any)); err != nil {
		t.Errorf("kubelet.yaml: %v", err)
	}
	if err := json.Unmarshal(files["/etc/cni/net.d/10-pods.conflist"], new(map[string]any)); err != nil {
		t.Errorf("10-pods.conflist: %v", err)
	}
}

func mapKeys(m map[string][]byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

func TestMachineIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"a", "abcdefghij"} {
		c := Cluster{Name: name, Nodes: MaxNodes}
		for _, m := range c.Machines() {
			id := c.machineID(m)
			if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || seen[id] {
				t.Errorf("%s %s has the machine id %q", name, m.Name, id)
			}
			seen[id] = true
		}
	}
}

func TestRedisConfig(t *testing.T) {
	golden.Compare(t, "testdata/redis.golden", string(example.RedisConfig("secret", "/cluster/data/redis")))
}

func TestKwokConfig(t *testing.T) {
	decoder := yaml.NewDecoder(strings.NewReader(string(KwokConfig)))
	var kinds []string
	for {
		var document struct{ Kind string }
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, document.Kind)
	}
	if want := []string{"KwokConfiguration", "Stage", "Stage", "Stage"}; !slices.Equal(kinds, want) {
		t.Errorf("got the documents %v, not %v", kinds, want)
	}
}

var places = Places{
	Kubernetes: "/cache/kubernetes", EtcdBuild: "/cache/etcd", KwokBuild: "/cache/kwok", Program: "/cluster/bin/cluster",
	Keys: "/cluster/keys", Configs: "/cluster/configs", Data: "/cluster/data",
}

func TestServers(t *testing.T) {
	fakes := Cluster{Name: "scale", Block: 21, Fake: 100}
	for name, c := range map[string]Cluster{"nodes": example, "fakes": fakes} {
		first, second := c.ControlPlaneServers(places)
		all := slices.Concat(first, second)
		for _, m := range c.Machines() {
			all = append(all, c.NodeServers(m, places)...)
		}
		var text strings.Builder
		seen := map[string]bool{}
		for _, s := range all {
			fmt.Fprintf(&text, "%s on %s\n\t%s\n", s.Name, s.Machine, strings.Join(s.Command, "\n\t\t"))
			if seen[s.Name] {
				t.Errorf("two servers are called %s", s.Name)
			}
			seen[s.Name] = true
			if !filepath.IsAbs(s.Command[0]) {
				t.Errorf("%s is started by %s, which is looked for somewhere", s.Name, s.Command[0])
			}
		}
		golden.Compare(t, "testdata/servers-"+name+".golden", text.String())
	}
}
