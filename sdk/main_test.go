package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		name     string
		body     Case
		exit     int
		event    string
		contains []string
	}{
		{"success", func(context.Context, *Run) error { return nil }, 0, "success_event", []string{`"group":"g"`}},
		{"failure", func(context.Context, *Run) error { return errors.New("no \"luck\"") }, 1, "failure_event", []string{`"group":"g"`, `no \"luck\"`}},
		{"panic", func(context.Context, *Run) error { panic("oh") }, 1, "crash_event", []string{`"error":"oh"`, "main_test.go"}},
		{"nil panic", func(context.Context, *Run) error { panic(nil) }, 1, "crash_event", []string{"nil"}},
		{"panic elsewhere", func(ctx context.Context, r *Run) error {
			r.Go(func() { panic(errors.New("there")) })
			<-ctx.Done()
			return nil
		}, 1, "crash_event", []string{`"error":"there"`, "main_test.go"}},
		{"metric that can't be", func(_ context.Context, r *Run) error { return r.Results.Point("x", 0/zero) }, 1, "failure_event", []string{"metric x: NaN"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			i := newInstance(t, s, nil)
			if exit := i.play(c.body); exit != c.exit {
				t.Errorf("exit status %d, want %d", exit, c.exit)
			}
			events := i.events()
			last := string(events[len(events)-1][c.event])
			told := s.Items(prefix + "run_events")
			for _, want := range c.contains {
				if !strings.Contains(last, want) || !strings.Contains(told[len(told)-1], want) {
					t.Errorf("%s lacks %s:\n%s\n%s", c.event, want, last, told[len(told)-1])
				}
			}
			if strings.Contains(c.event, "crash") != strings.Contains(i.stderr.String(), "panic:") {
				t.Errorf("stderr: %s", i.stderr.String())
			}
		})
	}
}

var zero float64

func TestStartSequence(t *testing.T) {
	s := newServer(t)
	var work sync.WaitGroup
	var mu sync.Mutex
	global, group := map[int64]bool{}, map[string]bool{}
	for n := range 3 {
		i := newInstance(t, s, map[string]string{
			"TEST_SIDECAR": "true", "TEST_INSTANCE_COUNT": "3", "TEST_GROUP_ID": fmt.Sprint("g", n%2), "TEST_SUBNET": "10.0.0.0/16",
		})
		work.Go(func() {
			i.play(func(_ context.Context, r *Run) error {
				mu.Lock()
				defer mu.Unlock()
				global[r.GlobalSeq], group[fmt.Sprint(r.Group, r.GroupSeq)] = true, true
				return nil
			})
			if first := i.events()[0]["start_event"]; !strings.Contains(string(first), `"network":"10.0.0.0/16"`) {
				t.Errorf("the start event is %s", first)
			}
		})
	}
	time.Sleep(30 * time.Millisecond)
	mu.Lock()
	if len(global) > 0 {
		t.Error("a case began before the network was there")
	}
	mu.Unlock()
	for range 3 {
		s.Signal(prefix + "states:network-initialized")
	}
	work.Wait()
	if len(global) != 3 || !global[1] || !global[3] || !group["g01"] || !group["g02"] || !group["g11"] {
		t.Errorf("numbers: %v, %v", global, group)
	}
	var kinds []string
	for _, item := range s.Items(prefix + "run_events") {
		var e map[string]any
		if err := json.Unmarshal([]byte(item), &e); err != nil {
			t.Error(err)
		}
		for kind := range e {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) != 9 || kinds[0] != "stage_start_event" || kinds[8] != "success_event" {
		t.Errorf("events: %v", kinds)
	}
}

func TestWrongUse(t *testing.T) {
	s := newServer(t)
	for name, c := range map[string]struct {
		changes map[string]string
		exit    int
		want    []string
	}{
		"no such case": {map[string]string{"TEST_CASE": "d"}, 2, []string{`there is no case "d"; this plan has c`}},
		"no case":      {map[string]string{"TEST_CASE": ""}, 2, []string{"TEST_CASE is not set"}},
		"several": {map[string]string{"TEST_INSTANCE_COUNT": "-1", "GROUNDPLAN_SEED": "x", "TEST_SUBNET": "y", "GROUNDPLAN_PARAMS": "[]", "GROUNDPLAN_DATA_ADDRESS": "z"}, 2,
			[]string{`TEST_INSTANCE_COUNT is "-1"`, `GROUNDPLAN_SEED is "x"`, `TEST_SUBNET is "y"`, "a JSON object of strings", "GROUNDPLAN_DATA_ADDRESS"}},
		"no profile": {map[string]string{"TEST_CAPTURE_PROFILES": "soul=1s"}, 1, []string{`no profile of kind "soul"`}},
		"no period":  {map[string]string{"TEST_CAPTURE_PROFILES": "heap="}, 1, []string{`the profile heap is asked for each ""`}},
		"no outputs": {map[string]string{"TEST_OUTPUTS_PATH": "/does/not/exist"}, 1, []string{"opening an output"}},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, s, c.changes)
			if exit := i.play(func(context.Context, *Run) error { return nil }); exit != c.exit {
				t.Errorf("exit status %d", exit)
			}
			for _, want := range c.want {
				if !strings.Contains(i.stderr.String(), want) {
					t.Errorf("stderr lacks %q:\n%s", want, i.stderr.String())
				}
			}
		})
	}
}

func TestTermination(t *testing.T) {
	i := newInstance(t, newServer(t), nil)
	exit := i.play(func(ctx context.Context, r *Run) error {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		return r.Barrier(ctx, "never", 2)
	})
	if exit != 1 || !strings.Contains(i.stdout.String(), "waiting for never to reach 2") {
		t.Errorf("exit status %d: %s", exit, i.stdout.String())
	}
}

func TestEnvironment(t *testing.T) {
	i := newInstance(t, newServer(t), map[string]string{
		"GROUNDPLAN_RUN": "ours", "GROUNDPLAN_INSTANCE": "4", "GROUNDPLAN_SEED": "18446744073709551615", "GROUNDPLAN_REGION": "eu",
		"GROUNDPLAN_STAGE": "warm-up", "TEST_SUBNET": "10.1.0.0/16", "GROUNDPLAN_DATA_ADDRESS": "10.1.0.9", "TEST_START_TIME": "2026-01-02T03:04:05Z",
		"TEST_INSTANCE_PARAMS": "a=lossy|b", "GROUNDPLAN_PARAMS": `{"a":"x=1|y","n":""}`, "TEST_INSTANCE_ROLE": "leader", "TEST_SIDECAR": "true",
	})
	e, err := readEnvironment(i.lookup)
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != "ours" || e.Index != 4 || e.Seed != 1<<64-1 || e.Region != "eu" || e.Stage != "warm-up" || e.Role != "leader" || !e.Shaped ||
		e.Subnet != netip.MustParsePrefix("10.1.0.0/16") || e.Start.Year() != 2026 || e.Params["a"] != "x=1|y" || len(e.Params) != 2 || e.Host != "g-0" {
		t.Errorf("read %+v", e)
	}
	if a, err := e.DataAddress(); err != nil || a.String() != "10.1.0.9" {
		t.Errorf("data address %v, %v", a, err)
	}
	delete(i.env, "GROUNDPLAN_PARAMS")
	delete(i.env, "GROUNDPLAN_DATA_ADDRESS")
	delete(i.env, "SYNC_SERVICE_HOST")
	delete(i.env, "SYNC_SERVICE_PORT")
	i.env["TEST_INSTANCE_PARAMS"] = "a=1|b=c=d|e"
	e, err = readEnvironment(i.lookup)
	if err != nil || e.Params["a"] != "1" || e.Params["b"] != "c=d" || len(e.Params) != 2 || e.sync != "testground-sync-service:5050" {
		t.Errorf("read %+v, %v", e, err)
	}
	if _, err := e.DataAddress(); err == nil || !strings.Contains(err.Error(), "10.1.0.0/16") {
		t.Errorf("without the network: %v", err)
	}
	e.Subnet = netip.MustParsePrefix("127.0.0.0/8")
	if a, err := e.DataAddress(); err != nil || a.String() != "127.0.0.1" {
		t.Errorf("by interface: %v, %v", a, err)
	}
	e.Subnet = netip.Prefix{}
	if a, err := e.DataAddress(); err != nil || a.String() != "127.0.0.1" {
		t.Errorf("without a network: %v, %v", a, err)
	}
}

func TestDataAddress6StandsBesideTheOther(t *testing.T) {
	e := Environment{Subnet: netip.MustParsePrefix("10.1.0.0/16")}
	addresses := func(texts ...string) (all []net.Addr) {
		for _, text := range texts {
			ip, network, err := net.ParseCIDR(text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &net.IPNet{IP: ip, Mask: network.Mask})
		}
		return all
	}
	for _, c := range []struct {
		have []net.Addr
		want string
	}{
		{addresses("10.1.0.9/16", "fd67::9/96"), "fd67::9"},
		{addresses("fe80::1/64", "fd67::9/96", "fd67::a/96", "10.1.0.9/8"), "fd67::9"},
		{addresses("10.1.0.9/16", "fe80::1/64"), "invalid IP"},
		{addresses("100.96.0.9/16", "fd67::9/96"), "invalid IP"},
		{addresses("127.0.0.1/8", "::1/128"), "invalid IP"},
	} {
		if got := e.beside(c.have).String(); got != c.want {
			t.Errorf("beside %v: %s, want %s", c.have, got, c.want)
		}
	}
	if a, err := e.DataAddress6(); err != nil || a.IsValid() {
		t.Errorf("this machine has a data address %v, %v", a, err)
	}
}

func TestProfiles(t *testing.T) {
	i := newInstance(t, newServer(t), map[string]string{"TEST_CAPTURE_PROFILES": "cpu=|heap=20ms|goroutine=1h"})
	if exit := i.play(func(context.Context, *Run) error { time.Sleep(100 * time.Millisecond); return nil }); exit != 0 {
		t.Fatalf("exit status %d: %s", exit, i.stdout.String())
	}
	for _, name := range []string{"cpu.prof", "heap.1.prof", "heap.2.prof", "goroutine.1.prof"} {
		if i.output(name) == "" {
			t.Errorf("%s is empty", name)
		}
	}
}
