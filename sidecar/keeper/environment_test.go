package keeper

import (
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestEnvironment(t *testing.T) {
	group := &control.Group{Group: pipelines.Group{
		Name: "eu", Region: "europe", Role: "seeder", Instances: 5,
		Parameters: map[string]string{"size": "10MiB", "wait": "1s", "query": "a=b", "list": "x|y"},
		Env:        map[string]string{"LOG_LEVEL": "debug", "EXTRA": "two words"},
		Ports:      map[string]int{"http": 8080, " Bit-Swap ": 4001},
		Profiles:   map[string]string{"heap": "30s", "cpu": ""},
	}}
	env, err := environment(surroundings{
		run: control.Placement{
			Run: "run-1", Pipeline: "dht", Seed: 7, Env: map[string]string{"TEST_REPO": "example.org/dht", "EXTRA": "one"},
		},
		group:   group,
		stage:   control.RunStage{Stage: "lookups", Case: "lookup", Params: map[string]string{"wait": "2s"}},
		started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)),
		subnet:  netip.MustParsePrefix("10.0.0.0/16"), gateway: netip.MustParseAddr("100.96.0.1"), port: 5050,
		all: 12, own: 5,
	}, instance{
		index: 3, host: "eu-3", outputs: "/runs/run-1/outputs/eu/3", temp: "/runs/run-1/temp/eu/3",
		control: netip.MustParseAddr("100.96.0.5"), data: netip.MustParseAddr("10.0.0.5"),
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/environment.golden", strings.Join(env, "\n")+"\n")
	if group.Parameters["wait"] != "1s" {
		t.Error("the group's own parameters were changed")
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (run with -update when that is meant):\n%s", path, got)
	}
}
