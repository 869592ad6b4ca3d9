//go:build linux

package keeper

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/control"
)

const keys = "run:run-1:plan:plan:case::"

// configure lets an instance publish a configuration of its network.
func (b *bench) configure(space, host, config string) {
	b.Observe(Observation{Client: "g/0", Space: space, Topic: keys + "topics:network:" + host, Payload: []byte(config)})
}

func TestConfigurationsAreAppliedInOrderAndUndone(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 2, "sleep 7551"))
	b.Observe(Observation{Client: "g/0", Space: "k1", Topic: keys + "run_events", Payload: []byte(`{"success_event":{}}`)}) // nothing runs yet
	b.open("k1", control.RunStage{Groups: []string{"g"}})
	b.until("k1", func(s control.RunStatus) bool { return s.Groups["g"].Running == 2 })
	for i := range 20 {
		b.configure("k1", "g-1", fmt.Sprintf(`{"network":"default","enable":%v,"IPv4":"10.0.9.%d/8","callback_state":"applied"}`, i%2 == 0, i+1))
	}
	b.configure("other", "g-1", `{"enable":true,"default":{"latency":5}}`) // of another stage
	b.configure("k1", "g-7", `{"enable":true,"default":{"latency":5}}`)    // nobody
	for b.signals.count("k1", keys+"states:applied") < 20 {
		time.Sleep(time.Millisecond)
	}
	want := Config{Address: netip.MustParsePrefix("10.0.9.20/16")}
	if got, _ := b.shaping.config(1); !reflect.DeepEqual(got, want) {
		t.Errorf("configured as %+v, want %+v", got, want)
	}
	if _, err := b.Halt(t.Context(), "k1"); err != nil {
		t.Fatal(err)
	}
	if got := b.shaping.called("Restore"); !slices.Equal(got, []string{"Restore [1]"}) {
		t.Errorf("after the stage: %q", got)
	}
}

// TestAddressStays is a configuration that names no address after one that did, and then a stage after that one.
func TestAddressStays(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 1, "sleep 7555"))
	address := func(key, config string) string {
		t.Helper()
		before := b.signals.count(key, keys+"states:s")
		b.configure(key, "g-0", config)
		for b.signals.count(key, keys+"states:s") == before {
			time.Sleep(time.Millisecond)
		}
		got, _ := b.shaping.config(0)
		return got.Address.String()
	}
	for i, key := range []string{"k1", "k2"} {
		b.open(key, control.RunStage{Groups: []string{"g"}})
		b.until(key, func(s control.RunStatus) bool { return s.Groups["g"].Running == 1 })
		if got := address(key, `{"enable":true,"callback_state":"s"}`); got != "10.0.0.2/16" {
			t.Errorf("stage %d begins at %s", i, got)
		}
		if got := address(key, `{"enable":true,"IPv4":"10.0.8.8/24","callback_state":"s"}`); got != "10.0.8.8/16" {
			t.Errorf("moved to %s", got)
		}
		if got := address(key, `{"enable":false,"callback_state":"s"}`); got != "10.0.8.8/16" {
			t.Errorf("then to %s", got)
		}
		if _, err := b.Halt(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShaperThatTakesLong checks that what instances do is heard while a configuration is put in force.
func TestShaperThatTakesLong(t *testing.T) {
	b := newBench(t)
	b.shaping.hold = make(chan struct{})
	b.place(shell("g", 2, "sleep 7556"))
	b.open("k1", control.RunStage{Groups: []string{"g"}})
	b.until("k1", func(s control.RunStatus) bool { return s.Groups["g"].Running == 2 })
	for range 3 {
		b.configure("k1", "g-0", `{"enable":true,"callback_state":"s"}`)
	}
	for len(b.shaping.called("Configure")) == 0 {
		time.Sleep(time.Millisecond)
	}
	b.configure("k1", "g-0", `{"enable":true,"callback_state":"s"}`)
	b.configure("k1", "g-1", `{"enable":true,"callback_state":"s"}`)
	if n := b.signals.count("k1", keys+"states:s"); n != 0 {
		t.Errorf("signalled %d times before anything was in force", n)
	}
	close(b.shaping.hold)
	for b.signals.count("k1", keys+"states:s") < 5 {
		time.Sleep(time.Millisecond)
	}
}

func TestConfigurationsThatCannotBeApplied(t *testing.T) {
	for want, b := range map[string]struct {
		config string
		fails  error
	}{
		"asked for a loss of 101% on its data network: a share is between 0 and 100": {`{"enable":true,"default":{"loss":101}}`, nil},
		"asked of its data network what can't be done: there is no way":              {`{"enable":true}`, &Refusal{"there is no way"}},
		"its network could not be configured: out of memory":                         {`{"enable":true}`, errors.New("out of memory")},
	} {
		t.Run(want, func(t *testing.T) {
			config, fails := b.config, b.fails
			b := newBench(t)
			b.shaping.fail["Configure"] = fails
			b.place(shell("g", 1, "sleep 7552"))
			b.open("k1", control.RunStage{Groups: []string{"g"}})
			b.until("k1", func(s control.RunStatus) bool { return s.Groups["g"].Running == 1 })
			b.configure("k1", "g-0", config)
			status := b.end("k1")
			if f := status.FirstFailure; f == nil || f.Outcome != "failed" || f.Reason != want || status.Unfinished != 0 {
				t.Errorf("%+v %+v", status, f)
			}
		})
	}
}

func TestObservedOutcomeCounts(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 3, "sleep 0.5; exit 0"))
	b.open("k1", control.RunStage{Groups: []string{"g"}})
	b.until("k1", func(s control.RunStatus) bool { return s.Groups["g"].Running == 3 })
	for client, payload := range map[string]string{
		"g/0": `{"success_event":{"group":"g"}}`,
		"g/1": `{"failure_event":{"group":"g","error":"bad"}}`,
		"g/2": `{"stage_start_event":{"name":"network-initialized"}}`,
		"h/9": `{"success_event":{"group":"g"}}`,
	} {
		b.Observe(Observation{Client: client, Space: "k1", Topic: keys + "run_events", Payload: []byte(payload)})
	}
	status := b.end("k1")
	if g := status.Groups["g"]; g.Succeeded != 1 || g.Failed != 1 || g.Silent != 1 {
		t.Errorf("%+v", status)
	}
	if r := b.results("lookups")["g/0"]; r.PeakMemory == 0 {
		t.Error("its memory was not looked at")
	}
}

func TestClient(t *testing.T) {
	b := newBench(t)
	if _, _, ok := b.Client(0); ok {
		t.Error("there is a client before there is a placement")
	}
	b.place(shell("g", 2, "sleep 7554"))
	if _, _, ok := b.Client(1); ok {
		t.Error("there is a client before anything runs")
	}
	b.open("k1", control.RunStage{Groups: []string{"g"}})
	if name, space, ok := b.Client(1); name != "g/1" || space != "k1" || !ok {
		t.Error(name, space, ok)
	}
	if _, _, ok := b.Client(2); ok {
		t.Error("there is a client where no place is")
	}
}
