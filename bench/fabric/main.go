// Fabric measures how long a network of hosts with shaped links takes to build and to destroy, beside Mininet (Debian's
// package), in one session: the two take turns, each in namespaces of its own, which go when it ends.
//
//	go run ./fabric -hosts 100,500 -rounds 3
//
// Mininet connects every host to one Linux bridge, and limits links with tc, two commands a link. Latency takes netem in
// Mininet, so it is only compared where the kernel has that: see -latency. It has to run as root, as Mininet does.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundplan/groundplan/sidecar/launch"
)

// roleVariable turns a copy of this program into the one of the two that it names.
const roleVariable = "GROUNDPLAN_BENCH_FABRIC"

// The two.
const (
	ours    = "groundplan"
	theirs  = "mininet"
	install = "apt-get install --no-install-recommends mininet bridge-utils net-tools iproute2 iputils-ping"
)

type options struct {
	hosts    string
	rounds   int
	megabits float64
	latency  time.Duration
	timeout  time.Duration
}

// figures are what one of the two took for one network, in seconds.
type figures struct {
	Build   float64 `json:"build"`
	Destroy float64 `json:"destroy"`
	// Works says whether two hosts reached each other in between; that takes no part in the times.
	Works bool `json:"works"`
}

func main() {
	var o options
	flag.StringVar(&o.hosts, "hosts", "100,500", "sizes of networks, in hosts")
	flag.IntVar(&o.rounds, "rounds", 3, "networks of each size and kind; the median counts")
	flag.Float64Var(&o.megabits, "bandwidth", 10, "what each link is limited to, in Mbit/s")
	flag.DurationVar(&o.latency, "latency", 0, "latency of each link; not 0 takes a kernel with netem")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "bound on one network")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench fabric:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	switch role := os.Getenv(roleVariable); role {
	case "":
		return compare(o)
	case ours:
		return buildOurs(o)
	case theirs:
		return buildTheirs(o)
	default:
		return fmt.Errorf("nobody plays %q", role)
	}
}

// compare builds networks of every size in turn and prints what they took.
func compare(o options) error {
	if os.Geteuid() != 0 {
		return errors.New("Mininet takes root")
	}
	if _, err := exec.LookPath("mnexec"); err != nil {
		return fmt.Errorf("Mininet isn't installed (%s): %w", install, err)
	}
	fmt.Printf("%5s  %-10s  %9s  %9s  %9s\n", "hosts", "", "build s", "destroy s", "both s")
	for _, size := range strings.Split(o.hosts, ",") {
		hosts, err := strconv.Atoi(size)
		if err != nil {
			return fmt.Errorf("understanding the size %q: %w", size, err)
		}
		found := make(map[string][]figures)
		for range o.rounds {
			for _, who := range []string{ours, theirs} {
				f, err := build(who, hosts, o)
				if err != nil {
					return fmt.Errorf("%s with %d hosts: %w", who, hosts, err)
				}
				found[who] = append(found[who], f)
			}
		}
		a, b := median(found[ours]), median(found[theirs])
		fmt.Printf("%5d  %-10s  %9.3f  %9.3f  %9.3f\n", hosts, ours, a.Build, a.Destroy, a.Build+a.Destroy)
		fmt.Printf("%5d  %-10s  %9.3f  %9.3f  %9.3f\n", hosts, theirs, b.Build, b.Destroy, b.Build+b.Destroy)
		fmt.Printf("%5d  %-10s  %8.1fx  %8.1fx  %8.1fx\n", hosts, "ratio", b.Build/a.Build, b.Destroy/a.Destroy, (b.Build+b.Destroy)/(a.Build+a.Destroy))
	}
	return nil
}

// median is that of each figure by itself.
func median(all []figures) figures {
	of := func(value func(figures) float64) float64 {
		values := make([]float64, len(all))
		for i, f := range all {
			values[i] = value(f)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return figures{Build: of(func(f figures) float64 { return f.Build }), Destroy: of(func(f figures) float64 { return f.Destroy })}
}

// build has one of the two build one network, in namespaces of its own, and returns what it says.
func build(who string, hosts int, o options) (figures, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return figures{}, err
	}
	defer read.Close()
	args := []string{"-hosts", strconv.Itoa(hosts), "-bandwidth", fmt.Sprint(o.megabits), "-latency", o.latency.String()}
	p, err := launch.Start(launch.Options{Executable: "/proc/self/exe", Args: args, Env: append(os.Environ(), roleVariable+"="+who), Log: write})
	write.Close()
	if err != nil {
		return figures{}, err
	}
	late := time.AfterFunc(o.timeout, func() { _ = p.Kill() })
	defer late.Stop()
	said, err := io.ReadAll(read)
	state, failed := p.Wait()
	if err := errors.Join(err, failed); err != nil {
		return figures{}, err
	}
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	var f figures
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &f); err != nil || !state.Success() || !f.Works {
		return figures{}, fmt.Errorf("it didn't work (%v):\n%s", state, said)
	}
	return f, nil
}
