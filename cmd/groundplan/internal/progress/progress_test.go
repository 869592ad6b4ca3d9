package progress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/workflows"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

func running(name string, since float64) workflows.StageState {
	return workflows.StageState{Name: name, Phase: phaseRunning, Attempt: 1, Started: at(since)}
}

func over(name string, v stage.Verdict, reason string, from, to float64) workflows.StageState {
	return workflows.StageState{Name: name, Phase: phaseEnded, Attempt: 1, Verdict: v, Reason: reason, Started: at(from), Ended: at(to)}
}

func pending(name string) workflows.StageState {
	return workflows.StageState{Name: name, Phase: phasePending}
}

func frame(now float64, progress []stage.Progress, states ...workflows.StageState) Frame {
	return Frame{
		Run: "dht-20260301-120000-k3fa", Pipeline: "dht", Started: start, Now: at(now),
		State: workflows.State{Stages: states}, Progress: progress,
	}
}

// story is a run as a sequence of frames.
func story() []Frame {
	lookups := func(waiting, run, ok, bad int, failure string) []stage.Progress {
		return []stage.Progress{{Stage: "lookups", Attempt: 1, Total: 50, Waiting: waiting, Running: run, Succeeded: ok, Failed: bad, FirstFailure: failure}}
	}
	built := over("build", stage.Passed, "", 0, 2.1)
	placed := over("place", stage.Passed, "", 2.1, 2.6)
	retried := over("wan", stage.Passed, "", 9, 9.4)
	retried.Attempt = 2
	again := over("wan", stage.Invalid, "link eu → us is not as asked", 2.6, 3)
	again.Phase = phaseBackoff
	rest := []workflows.StageState{pending("lookups"), pending("gather")}
	return []Frame{
		frame(0.3, []stage.Progress{{Stage: "build", Attempt: 1, Note: "compiling peer"}}, append([]workflows.StageState{running("build", 0), pending("place"), pending("wan")}, rest...)...),
		frame(2.3, []stage.Progress{{Stage: "place", Attempt: 1, Total: 50, Placed: 31}}, append([]workflows.StageState{built, running("place", 2.1), pending("wan")}, rest...)...),
		frame(3.1, nil, append([]workflows.StageState{built, placed, again}, rest...)...),
		frame(10, lookups(50, 0, 0, 0, ""), built, placed, retried, running("lookups", 9.4), pending("gather")),
		frame(15.2, lookups(0, 19, 30, 1, "eu/3: panicked: index out of range"), built, placed, retried, running("lookups", 9.4), pending("gather")),
		frame(15.9, lookups(0, 18, 31, 1, "eu/3: panicked: index out of range"), built, placed, retried, running("lookups", 9.4), pending("gather")),
		frame(21, lookups(0, 0, 49, 1, "eu/3: panicked: index out of range"), built, placed, retried,
			over("lookups", stage.Failed, "1 of 50 instances did not succeed (eu/3)", 9.4, 20.5), running("gather", 20.5)),
		frame(22, nil, built, placed, retried,
			over("lookups", stage.Failed, "1 of 50 instances did not succeed (eu/3)", 9.4, 20.5), over("gather", stage.Passed, "", 20.5, 21.5)),
	}
}

func TestLines(t *testing.T) {
	var b bytes.Buffer
	view := New(&terminal.Terminal{Writer: &b})
	for _, f := range story() {
		view.Show(f)
		view.Show(f) // nothing new, nothing said
	}
	view.Say("one more\x1b[2J thing")
	view.Close()
	golden.Compare(t, "testdata/lines.golden", b.String())
}

func TestLive(t *testing.T) {
	s := newScreen(80, 24)
	view := New(&terminal.Terminal{Writer: s, Live: true, Window: func() (int, int) { return s.width, s.height }})
	var b strings.Builder
	for i, f := range story() {
		view.Show(f)
		fmt.Fprintf(&b, "--- frame %d\n%s", i+1, s)
		if !s.hidden {
			t.Error("the cursor is not hidden while the block is shown")
		}
	}
	view.Say("Cancelling: ending every instance and releasing the placement. Ctrl-C again leaves at once.")
	fmt.Fprintf(&b, "--- said\n%s", s)
	view.Close()
	fmt.Fprintf(&b, "--- closed\n%s", s)
	if s.hidden {
		t.Error("the cursor is still hidden at the end")
	}
	golden.Compare(t, "testdata/live.golden", b.String())
}

func TestLiveSurvivesResizing(t *testing.T) {
	s := newScreen(100, 24)
	view := New(&terminal.Terminal{Writer: s, Live: true, Window: func() (int, int) { return s.width, s.height }})
	frames := story()
	for _, width := range []int{100, 43, 61, 20, 120, 12, 80} {
		s.resize(width)
		for _, f := range frames {
			view.Show(f)
		}
		if s.wrapped > 0 {
			t.Fatalf("at width %d a line was too long", width)
		}
	}
	if n := strings.Count(s.String(), "gather"); n != 1 {
		t.Errorf("the block stands %d times on the screen:\n%s", n, s)
	}
	view.Close()
	if got := strings.TrimSpace(s.String()); got != "" {
		t.Errorf("left on the screen: %q", got)
	}
}

func TestLiveColours(t *testing.T) {
	var b bytes.Buffer
	view := New(&terminal.Terminal{Writer: &b, Live: true, Color: true})
	view.Show(story()[4])
	for _, want := range []string{"\x1b[32m✔", "\x1b[31m━", "\x1b[36m"} {
		if !strings.Contains(strings.ReplaceAll(b.String(), "m  ✔", "m✔"), want) {
			t.Errorf("no %q in %q", want, b.String())
		}
	}
}

func TestLongListsAreCut(t *testing.T) {
	var states []workflows.StageState
	for i := range 40 {
		states = append(states, over(fmt.Sprintf("done-%d", i), stage.Passed, "", 0, 1))
	}
	states[3].Verdict = stage.Failed
	states = append(states, running("now", 1))
	for i := range 60 {
		states = append(states, pending(fmt.Sprintf("later-%d", i)))
	}
	shown, above, below := window(states, 12)
	if len(shown) != 12 || shown[4].Name != "now" {
		t.Errorf("shown %v", shown)
	}
	if want := "… 36 earlier: 35 passed, 1 failed"; above != want {
		t.Errorf("above %q, want %q", above, want)
	}
	if want := "… 53 more: 53 pending"; below != want {
		t.Errorf("below %q, want %q", below, want)
	}
	s := newScreen(80, 24)
	New(&terminal.Terminal{Writer: s, Live: true, Window: func() (int, int) { return 80, 24 }}).Show(frame(2, nil, states...))
	if n := strings.Count(s.String(), "\n"); n > 24 {
		t.Errorf("%d lines on a terminal of 24", n)
	}
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		p    stage.Progress
		want string
	}{
		{stage.Progress{Total: 10}, "╌╌╌╌╌╌╌╌╌╌"},
		{stage.Progress{Total: 10, Placed: 5}, "━━━━━╌╌╌╌╌"},
		{stage.Progress{Total: 10000, Succeeded: 9999, Failed: 1}, "━━━━━━━━━━"},
		{stage.Progress{Total: 4, Succeeded: 9}, "━━━━━━━━━━"}, // wrong counts draw no wrong bar
	} {
		got := ""
		for _, part := range bar(c.p, 10) {
			got += part.text
		}
		if got != "  "+c.want {
			t.Errorf("%+v: %q, want %q", c.p, got, c.want)
		}
	}
	if bar(stage.Progress{Total: 1}, 0) != nil || bar(stage.Progress{}, 10) != nil {
		t.Error("a bar of nothing")
	}
}

func TestStream(t *testing.T) {
	var b bytes.Buffer
	view := NewStream(&b)
	for _, f := range story() {
		view.Show(f)
		f.Now = f.Now.Add(time.Second)
		view.Show(f) // only the clock went on
	}
	view.Say("for people only")
	view.Close()
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != len(story()) {
		t.Fatalf("%d lines for %d frames", len(lines), len(story()))
	}
	var last struct {
		Run    string
		Stages []workflows.StageState
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Run == "" || len(last.Stages) != 5 {
		t.Errorf("%v: %+v", err, last)
	}
}
