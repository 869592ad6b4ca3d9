package kubernetes

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("x", 63)
	seen := map[string]string{}
	for _, run := range []string{"dht-20261122", "DHT-20261122", "dht.20261122", "dht_20261122", "-dht", "_", "..x", long, "X" + long[1:], "a-1", "a"} {
		for _, group := range []string{"eu", "1-eu", long} {
			for _, index := range []int{0, 1, 10_000} {
				of := fmt.Sprint(run, " ", group, " ", index)
				name := podName(run, group, index)
				if faults := validation.IsDNS1123Label(name); len(faults) > 0 {
					t.Errorf("%s: %s: %v", of, name, faults)
				}
				if other, twice := seen[name]; twice {
					t.Errorf("%s has the name of %s: %s", of, other, name)
				}
				seen[name] = of
				if faults := validation.IsDNS1123Label(control.Hostname(group, index)); len(faults) > 0 {
					t.Errorf("%s: hostname %s: %v", of, control.Hostname(group, index), faults)
				}
			}
		}
		if faults := validation.IsValidLabelValue(runLabel(run)); len(faults) > 0 || runLabel(run) == "" {
			t.Errorf("%s: label %q: %v", run, runLabel(run), faults)
		}
		if faults := validation.IsDNS1123Label(ownerName(run)); len(faults) > 0 {
			t.Errorf("%s: owner %s: %v", run, ownerName(run), faults)
		}
	}
}

// FuzzNames looks for ids of runs that can't be names of objects, or whose objects have the same names.
func FuzzNames(f *testing.F) {
	f.Add("a", "b")
	f.Add("A", "a")
	f.Add("a.b", "a-b")
	validGroup := regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	f.Fuzz(func(t *testing.T, one, other string) {
		if runs.CheckID(one) != nil || runs.CheckID(other) != nil || !validGroup.MatchString("g") {
			t.Skip()
		}
		for _, id := range []string{one, other} {
			name, label := podName(id, "g", 7), runLabel(id)
			if len(validation.IsDNS1123Label(name)) > 0 || len(validation.IsValidLabelValue(label)) > 0 || label == "" {
				t.Errorf("%q: %q, %q", id, name, label)
			}
		}
		if one != other && (podName(one, "g", 7) == podName(other, "g", 7) || runLabel(one) == runLabel(other)) {
			t.Errorf("%q and %q have the same names", one, other)
		}
	})
}

func TestSeatsAndRanges(t *testing.T) {
	all := seats("r", []pipelines.Group{{Name: "g", Instances: 2}, {Name: "h", Instances: 3}})
	if len(all) != 5 || all[3].slot != 3 || all[3].name() != "h/1" {
		t.Errorf("%+v", all)
	}
}
