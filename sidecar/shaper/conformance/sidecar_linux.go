package conformance

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
)

// Main is what the TestMain of a package calls whose tests use AsSidecar.
func Main(m *testing.M) {
	if launchtest.Inside() {
		flag.Parse()
		_ = flag.Set("test.parallel", "20") // tests of shaping wait more than they work
	}
	launchtest.Main(m, nil)
}

// AsSidecar has a test do its work in a sidecar: once per kind of user that can start one here. The test skips where
// nobody can.
func AsSidecar(t *testing.T, work func(t *testing.T)) {
	t.Helper()
	launchtest.Options{Flags: flags}.InSidecar(t, work)
}

// AsNodes is AsSidecar for what happens on a cluster's nodes, where root works.
func AsNodes(t *testing.T, work func(t *testing.T)) {
	t.Helper()
	launchtest.Options{Flags: flags, Root: true}.InSidecar(t, work)
}

// flags are what the sidecar of a test gets to know.
func flags(t *testing.T) []string {
	all := []string{"-slack=" + slack.String()}
	// A test that is too slow says what it was at, before the one who waits for it runs out of time.
	if deadline, ok := t.Deadline(); ok {
		all = append(all, "-test.timeout="+(time.Until(deadline)*9/10).String())
	}
	return all
}

// Rootless says whether the work of AsSidecar is done for a user who isn't root.
func Rootless() bool {
	m, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(m))
	return err == nil && (len(fields) < 3 || fields[2] == "1")
}

// Placed is a fabric with instances in slots 0 to n-1.
func Placed(t testing.TB, n int) *fabric.Fabric {
	t.Helper()
	f, err := fabric.New(fabric.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	specs := make([]fabric.Spec, n)
	for i := range specs {
		specs[i] = fabric.Spec{Slot: i, Hostname: fmt.Sprint("i", i)}
	}
	for i, err := range f.Add(t.Context(), specs) {
		if err != nil {
			t.Fatalf("slot %d: %v", i, err)
		}
	}
	return f
}
