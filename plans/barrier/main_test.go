package main

import (
	"strings"
	"testing"

	"github.com/groundplan/groundplan/sdk"
)

func TestTallyTakesEveryItemOnce(t *testing.T) {
	counts := tally{from: map[int64]int{}, instances: 3, items: 2}
	// Publishers in any order, the items of one in theirs.
	for n, i := range []item{{From: 2}, {From: 1}, {From: 2, Number: 1}, {From: 3}, {From: 3, Number: 1}, {From: 1, Number: 1}} {
		if counts.complete() {
			t.Errorf("complete with %d items", n)
		}
		if err := counts.add(i); err != nil {
			t.Errorf("item %d: %v", n, err)
		}
	}
	if !counts.complete() || counts.total != 6 {
		t.Errorf("not complete with %d items", counts.total)
	}
}

func TestTallyRefusesWhatShouldNotCome(t *testing.T) {
	for name, c := range map[string]struct {
		before []item
		item   item
		says   string
	}{
		"twice":           {[]item{{From: 1}}, item{From: 1}, "turn of item 1"},
		"out of order":    {nil, item{From: 1, Number: 1}, "turn of item 0"},
		"from nobody":     {nil, item{From: 4}, "from instance 4 of 3"},
		"from instance 0": {nil, item{}, "from instance 0 of 3"},
		"too many":        {[]item{{From: 1}, {From: 1, Number: 1}}, item{From: 1, Number: 2}, "which publishes 2"},
	} {
		counts := tally{from: map[int64]int{}, instances: 3, items: 2}
		for _, i := range c.before {
			if err := counts.add(i); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if err := counts.add(c.item); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want something with %q", name, err, c.says)
		}
		if counts.total != len(c.before) {
			t.Errorf("%s: counted", name)
		}
	}
}

func TestParameters(t *testing.T) {
	run := func(params map[string]string) *sdk.Run {
		return &sdk.Run{Environment: sdk.Environment{Params: params}}
	}
	if p, err := readPlan(run(nil)); err != nil || p != (plan{rounds: 10, items: 1}) {
		t.Errorf("without parameters: %+v, %v", p, err)
	}
	if p, err := readPlan(run(map[string]string{"rounds": "0", "items": "5", "size": "1Ki"})); err != nil || p != (plan{0, 5, 1024}) {
		t.Errorf("with parameters: %+v, %v", p, err)
	}
	for name, value := range map[string]string{"rounds": "-1", "items": "0", "size": "much"} {
		if _, err := readPlan(run(map[string]string{name: value})); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}
