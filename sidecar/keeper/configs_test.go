//go:build linux

package keeper

import (
	"fmt"
	"net/netip"
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
	b.network.mu.Lock()
	if b.network.enabled[1] || b.network.moved[1] != netip.MustParsePrefix("10.0.9.20/16") {
		t.Errorf("enabled %v, moved to %v", b.network.enabled[1], b.network.moved[1])
	}
	b.network.mu.Unlock()
	if _, err := b.Halt(t.Context(), "k1"); err != nil {
		t.Fatal(err)
	}
	if !b.network.enabled[1] || b.network.moved[1] != netip.MustParsePrefix("10.0.0.3/16") {
		t.Errorf("after the stage: enabled %v, at %v", b.network.enabled[1], b.network.moved[1])
	}
}

func TestConfigurationsThatCannotBeApplied(t *testing.T) {
	shape := func(s string) string { return `{"enable":true,"network":"default","default":{` + s + `}}` }
	for config, want := range map[string]string{
		shape(`"latency":100000000`):           "asked for latency on its data network, which this ground cannot shape yet",
		shape(`"jitter":1`):                    "asked for jitter on its data network, which this ground cannot shape yet",
		shape(`"bandwidth":1048576`):           "asked for bandwidth on its data network, which this ground cannot shape yet",
		shape(`"loss":0.5`):                    "asked for loss on its data network, which this ground cannot shape yet",
		shape(`"filter":2`):                    "asked for dropping on its data network, which this ground cannot shape yet",
		`{"network":"second"}`:                 `asked to configure the network "second": there is only one data network, called default`,
		`{"enable":true,"IPv6":"::1/64"}`:      "asked for the IPv6 address ::1/64 on its data network, which has IPv4 only",
		`{"enable":true,"IPv4":"16.3.0.7/16"}`: "its network could not be configured: the address 16.3.0.7 is outside the data network 10.0.0.0/16",
		`{"enable":true,"IPv4":"x"}`:           `its network could not be configured: understanding its IPv4 address: netip.ParsePrefix("x"): no '/'`,
		`[]`:                                   "its network could not be configured: understanding it: json: cannot unmarshal array into Go value of type keeper.config",
		`{"enable":true,"rules":[{"subnet":"10.1.0.0/16","filter":1}]}`: "asked for rejecting towards 10.1.0.0/16 on its data network, which this ground cannot shape yet",
	} {
		t.Run(config, func(t *testing.T) {
			b := newBench(t)
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

func TestConfigurationThatAsksForNothingElse(t *testing.T) {
	for _, config := range []string{
		`{"network":"default","enable":true,"IPv4":null,"IPv6":null,"default":{"latency":0,"filter":0},"rules":null,"callback_state":"s","routing_policy":"allow_all"}`,
		`{"enable":true,"rules":[{"subnet":"10.1.0.0/16","latency":0}],"callback_state":"s"}`,
		`{"enable":true,"IPv4":"10.0.0.2/8","callback_state":"s"}`, // its own
	} {
		b := newBench(t)
		b.place(shell("g", 1, "sleep 7553"))
		b.open("k1", control.RunStage{Groups: []string{"g"}})
		b.until("k1", func(s control.RunStatus) bool { return s.Groups["g"].Running == 1 })
		b.configure("k1", "g-0", config)
		for b.signals.count("k1", keys+"states:s") == 0 {
			time.Sleep(time.Millisecond)
		}
		if len(b.network.moved) > 0 {
			t.Errorf("%s: moved to %v", config, b.network.moved)
		}
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
