package fabric

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/launch"
)

// A bridge ends at 1,023 ports. This has no such end.
func TestManyInstances(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: not with -short")
	}
	inSidecar(t, func(t *testing.T, f *Fabric) {
		for _, n := range []int{1500, 2000} {
			started := time.Now()
			added(t, f, n)
			t.Logf("%d instances placed after another %v", n, time.Since(started))
		}
		for _, pair := range [][2]int{{0, 1999}, {1999, 0}, {1023, 1024}, {253, 254}} {
			_, data := f.Addresses(pair[1])
			tcp, udp := echo(t, f, pair[1], data)
			for network, to := range map[string]netip.AddrPort{"tcp": tcp, "udp": udp} {
				if err := reach(t, f, pair[0], network, to); err != nil {
					t.Errorf("%d → %d by %s: %v", pair[0], pair[1], network, err)
				}
			}
		}
		started := time.Now()
		slots := make([]int, 2000)
		for i := range slots {
			slots[i] = i
		}
		if err := f.Remove(slots...); err != nil {
			t.Fatal(err)
		}
		t.Logf("2,000 instances removed in %v", time.Since(started))
		links, err := f.ours.router.links()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if l.index >= firstNearIndex {
				t.Fatalf("the link %s is still there", l.name)
			}
		}
	})
}

// BenchmarkAdd places 1,000 instances, each time in a sidecar of its own. Run it as:
//
//	go test -run '^$' -bench Add -benchtime 5x ./sidecar/fabric
func BenchmarkAdd(b *testing.B) {
	if err := launch.Supported(); err != nil {
		b.Skip(err)
	}
	const n = 1000
	var took, memory float64
	for b.Loop() {
		p, out := startRole(b, nil, rolePlace, strconv.Itoa(n))
		var placing time.Duration
		var bytes int64
		if _, err := fmt.Fscanln(out, &placing, &bytes); err != nil {
			b.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			b.Fatal(err)
		}
		took += placing.Seconds()
		memory += float64(bytes)
	}
	b.ReportMetric(took/float64(b.N), "s/placing")
	b.ReportMetric(memory/float64(b.N)/n/1024, "KiB/instance")
}

// place places instances and prints how long it took, in nanoseconds, and how much memory the kernel took.
func place(n int) error {
	f, err := New(Options{})
	if err != nil {
		return err
	}
	before, err := used()
	if err != nil {
		return err
	}
	started := time.Now()
	if err := errors.Join(f.Add(context.Background(), specs(n))...); err != nil {
		return err
	}
	took := time.Since(started)
	after, err := used()
	fmt.Println(int64(took), after-before)
	return err
}

// used is the memory that the kernel has for itself, in bytes, as far as it says: user programs don't disturb it much.
func used() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "Slab", "Percpu", "KernelStack", "VmallocUsed":
			kilobytes, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				return 0, err
			}
			sum += kilobytes << 10
		}
	}
	return sum, nil
}
