package pipelines

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCompared looks where a suite's comparison comes to lie.
func TestCompared(t *testing.T) {
	place := Stage{Name: "place", Kind: KindSchedule}
	run := func(name string) Stage { return Stage{Name: name, Kind: KindRun, Needs: []string{"place"}} }
	collect := func(name, when string, own *Compare) Stage {
		return Stage{Name: name, Kind: KindCollect, When: when, Needs: []string{"go"}, Collect: &Collect{Compare: own}}
	}
	own, suite := &Compare{With: "own"}, &Compare{With: "suite"}
	for name, c := range map[string]struct {
		stages []Stage
		want   string // the stages that compare, with what
		needs  string
	}{
		"the last one":          {[]Stage{place, run("go"), collect("first", "", nil), collect("last", "", nil)}, "last:suite", "go"},
		"one that always runs":  {[]Stage{place, run("go"), collect("always", "", nil), collect("failed", "failure", nil)}, "always:suite", "go"},
		"the last with a when":  {[]Stage{place, run("go"), collect("one", "x", nil), collect("two", "x", nil)}, "two:suite", "go"},
		"its own":               {[]Stage{place, run("go"), collect("first", "", own), collect("last", "", nil)}, "first:own", "go"},
		"none":                  {[]Stage{place, run("go"), run("beside")}, "compare:suite", "go,beside"},
		"none, the name is had": {[]Stage{place, run("compare")}, "compare-2:suite", "compare"},
	} {
		var got, needs []string
		for _, s := range compared(c.stages, suite) {
			if s.Collect != nil && s.Collect.Compare != nil {
				got, needs = append(got, s.Name+":"+s.Collect.Compare.With), s.Needs
			}
		}
		if !slices.Equal(got, []string{c.want}) || strings.Join(needs, ",") != c.needs {
			t.Errorf("%s: %v behind %v, want %s behind %s", name, got, needs, c.want, c.needs)
		}
	}
	if got := compared([]Stage{place}, nil); len(got) != 1 {
		t.Errorf("nothing to lay over gives %v", got)
	}
}

// TestCompareTravels: a matrix' cells are resolved from the bundle, elsewhere.
func TestCompareTravels(t *testing.T) {
	root := folder(t, map[string]string{"p.yaml": strings.Replace(simple, "needs: place,", "needs: one,", 1)})
	with := &Compare{With: "last-success", Runs: 4, Alpha: 0.01, Tolerance: map[string]Share{"*.p95": 0.1}}
	doc, err := Load(root+"/p.yaml", Options{Root: root, Compare: with})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(doc.Bundle())
	if err != nil {
		t.Fatal(err)
	}
	one, err := doc.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := again.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	if last := other.Stages[len(other.Stages)-1]; last.Collect == nil || last.Collect.Compare == nil || last.Collect.Compare.Runs != 4 || one.Digest != other.Digest {
		t.Errorf("got %+v", last)
	}
}

func TestDue(t *testing.T) {
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		cron, zone, at string
		want           bool
	}{
		{"0 2 * * *", "UTC", "2026-01-02T02:00:00Z", true},
		{"0 2 * * *", "UTC", "2026-01-02T02:00:01Z", false},
		{"0 2 * * *", "UTC", "2026-01-02T02:01:00Z", false},
		{"0 2 * * *", "Europe/Berlin", "2026-01-02T01:00:00Z", true},
		{"0 2 * * *", "Europe/Berlin", "2026-07-02T00:00:00Z", true},
		{"*/15 * * * *", "UTC", "2026-01-02T02:45:00Z", true},
		{"*/15 * * * *", "UTC", "2026-01-02T02:46:00Z", false},
		{"5/20 * * * *", "UTC", "2026-01-02T02:45:00Z", true},
		{"5/20 * * * *", "UTC", "2026-01-02T02:40:00Z", false},
		{"0 9-17/2 * * mon-fri", "UTC", "2026-01-02T11:00:00Z", true}, // a Friday
		{"0 9-17/2 * * mon-fri", "UTC", "2026-01-02T12:00:00Z", false},
		{"0 9-17/2 * * mon-fri", "UTC", "2026-01-03T11:00:00Z", false},
		{"0 0 * * 7", "UTC", "2026-01-04T00:00:00Z", true}, // a Sunday
		{"0 0 * * 0", "UTC", "2026-01-04T00:00:00Z", true},
		{"0 0 1 jan *", "UTC", "2026-01-01T00:00:00Z", true},
		{"0 0 1,15 feb,mar *", "UTC", "2026-03-15T00:00:00Z", true},
		{"0 0 1 * mon", "UTC", "2026-01-01T00:00:00Z", false}, // both have to fit
		{"@daily", "UTC", "2026-01-01T00:00:00Z", true},
		{"@hourly", "Asia/Kolkata", "2026-01-01T00:30:00Z", true},
		{"@weekly", "UTC", "2026-01-04T00:00:00Z", true},
		{"@monthly", "UTC", "2026-01-02T00:00:00Z", false},
		{"@yearly", "UTC", "2026-01-01T00:00:00Z", true},
		{"", "UTC", "2026-01-01T00:00:00Z", false},
		{"0 0 * * *", "Nowhere", "2026-01-01T00:00:00Z", false},
	} {
		if got := (SuiteSchedule{Cron: c.cron, Timezone: c.zone}).Due(at(c.at)); got != c.want {
			t.Errorf("%s in %s at %s: %t", c.cron, c.zone, c.at, got)
		}
	}
}

func TestTimes(t *testing.T) {
	from := time.Date(2026, 3, 28, 0, 30, 30, 0, time.UTC)
	// The clocks of Berlin go forward in the night to the 29th: there is no half past two.
	times := SuiteSchedule{Cron: "30 2 * * *", Timezone: "Europe/Berlin"}.Times(from, from.AddDate(0, 0, 4), 100)
	var got []string
	for _, at := range times {
		got = append(got, at.UTC().Format("02T15:04"))
	}
	if want := "28T01:30 30T00:30 31T00:30 01T00:30"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if times := (SuiteSchedule{Cron: "* * * * *", Timezone: "UTC"}).Times(from, from.AddDate(0, 0, 1), 7); len(times) != 7 {
		t.Errorf("at most 7 are %d", len(times))
	}
	if times := (SuiteSchedule{}).Times(from, from.AddDate(0, 0, 1), 7); times != nil {
		t.Errorf("without a schedule: %v", times)
	}
}
