package policy

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
	"github.com/groundplan/groundplan/sidecar/links"
)

// benchInSidecar has a benchmark done in a sidecar, and prints what it says.
func benchInSidecar(b *testing.B, work func(b *testing.B)) {
	b.Helper()
	if launchtest.Inside() {
		work(b)
		return
	}
	if err := launch.Supported(); err != nil {
		b.Skip(err)
	}
	for _, who := range []*syscall.Credential{nil, launchtest.Nobody} {
		if os.Geteuid() != 0 && who != nil {
			continue
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^$", "-test.bench=^"+regexp.QuoteMeta(b.Name())+"$")
		cmd.Env, cmd.Dir = launchtest.StarterEnvironment(), "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
		said, err := cmd.CombinedOutput()
		if err != nil {
			b.Fatalf("%v\n%s", err, said)
		}
		for line := range strings.Lines(string(said)) {
			if strings.HasPrefix(line, "Benchmark") {
				fmt.Printf("uid %d: %s", uid(who), line)
			}
		}
	}
	b.SkipNow()
}

func ptr[T any](v T) *T { return &v }

// fourRegions is a stage with a full matrix of latencies between four groups.
func fourRegions() ([]string, pipelines.Network) {
	names := []string{"eu", "us", "ap", "sa"}
	var n pipelines.Network
	for i, from := range names {
		for j, to := range names {
			n.Links = append(n.Links, pipelines.Link{From: from, To: to, Shape: pipelines.Shape{Latency: ptr(pipelines.Duration(1+i*10+j*7) * 1e6)}})
		}
	}
	return []string{"eu:250", "us:250", "ap:250", "sa:250"}, n
}

func BenchmarkApply(b *testing.B) {
	benchInSidecar(b, func(b *testing.B) {
		groups, calm := fourRegions()
		r := newRig(b, Options{MarkShaped: true}, false, groups)
		split := calm
		split.Links = append(split.Links[:len(split.Links):len(split.Links)], link("eu", "us", "drop"), link("us", "eu", "reject"))
		inbound := calm
		inbound.Inbound = []pipelines.Block{{Groups: []string{"eu", "us"}, Policy: "reject"}}
		plans := map[int]links.Plan{}
		for i := range r.seats.Instances {
			plans[i] = links.Plan{Rules: []links.Rule{
				{To: netip.PrefixFrom(r.seats.Instances[i*37%1000].Data, 28).Masked(), Shape: links.Shape{Shape: pipelines.Shape{Policy: "drop"}}},
				{To: netip.PrefixFrom(r.seats.Instances[i*91%1000].Data, 32), Shape: links.Shape{Shape: pipelines.Shape{Policy: "reject"}}},
			}}
		}
		for _, c := range []struct {
			name     string
			from, to links.Layers
		}{
			{"first", links.Layers{}, links.Layers{Stage: calm}},
			{"partition", links.Layers{Stage: calm}, links.Layers{Stage: split}},
			{"inbound", links.Layers{Stage: calm}, links.Layers{Stage: inbound}},
			{"plans", links.Layers{Stage: calm}, links.Layers{Stage: calm, Plans: plans}},
			{"partition-under-plans", links.Layers{Stage: calm, Plans: plans}, links.Layers{Stage: split, Plans: plans}},
			{"one-of-1000-plans", links.Layers{Stage: calm, Plans: plans}, links.Layers{Stage: calm, Plans: without(plans, 500)}},
		} {
			b.Run(c.name, func(b *testing.B) {
				from, to := state(b, r, c.from), state(b, r, c.to)
				for b.Loop() {
					b.StopTimer()
					must(b, r.table.Apply(b.Context(), from))
					b.StartTimer()
					must(b, r.table.Apply(b.Context(), to))
				}
			})
		}
	})
}

func without(plans map[int]links.Plan, slot int) map[int]links.Plan {
	fewer := map[int]links.Plan{}
	for s, p := range plans {
		if s != slot {
			fewer[s] = p
		}
	}
	return fewer
}

func state(b testing.TB, r *rig, l links.Layers) *links.State {
	b.Helper()
	s, err := links.New(r.seats, l)
	must(b, err)
	return s
}

func must(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkForward sends packets of 100 bytes from one instance to another, which doesn't read them: the sender's
// processor carries each all the way.
func BenchmarkForward(b *testing.B) {
	benchInSidecar(b, func(b *testing.B) {
		r := newRig(b, Options{}, true, []string{"a:2", "b:300", "c:300"})
		r.serve(b, 1)
		for _, c := range []struct {
			name  string
			links links.Layers
		}{
			{"calm", links.Layers{}},
			{"policies", stage(link("a", "b", "drop"), link("c", "a", "drop"))},
			{"inbound", blocked("reject", "b", "c")},
			{"none", links.Layers{}},
		} {
			r.apply(b, c.links)
			if c.name == "none" {
				must(b, r.table.Close())
			}
			for network, to := range map[string]netip.Addr{"udp4": r.seats.Instances[1].Data, "udp6": r.seats.Instances[1].Data6} {
				b.Run(c.name+"/"+network, func(b *testing.B) { forward(b, r, network, to) })
			}
		}
	})
}

func forward(b *testing.B, r *rig, network string, to netip.Addr) {
	const size = 100
	c, err := r.dial(0, network, to, patience)
	must(b, err)
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	must(b, err)
	message := make([]byte, size)
	_ = raw.Control(func(fd uintptr) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		before := threadTime(b)
		for b.Loop() {
			_ = unix.Send(int(fd), message, unix.MSG_DONTWAIT)
		}
		b.ReportMetric(float64(threadTime(b)-before)/float64(b.N), "cpu-ns/op") // however busy the machine is
	})
}

func threadTime(b *testing.B) int64 {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_THREAD, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

func uid(who *syscall.Credential) int {
	if who == nil {
		return os.Geteuid()
	}
	return int(who.Uid)
}
