package workflows

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

func TestDecidesAlone(t *testing.T) {
	for when, want := range map[string]bool{
		"":                                     false,
		"true":                                 true,
		" true ":                               true,
		"false":                                false,
		"true && parameters.wan":               false,
		"stages.ping.outcome == 'failed'":      true,
		"!(stages.ping.outcome in ['failed'])": true,
		"parameters.n > 1 && stages.a.outcome!='x'": true,
		"parameters.stages > 1":                     false,
		"parameters . stages > 1":                   false,
		"stages2 || mystages":                       false,
		"parameters.x == 'stages'":                  false,
		`parameters.x == "a \" stages"`:             false,
		`parameters.x == r"\" + stages.a.outcome`:   true,
		`parameters.x == """ " stages """`:          false,
		"'''it's''' == stages.a.outcome":            true,
		"1 > 2 // stages":                           false,
		"1 > 2 // no\n|| has(stages.a)":             true,
		"'never ends stages":                        false,
		"größe == 1 || stages.a.outcome == 'x'":     true,
	} {
		if got := decidesAlone(when); got != want {
			t.Errorf("%q decides alone: %v, want %v", when, got, want)
		}
	}
}

func FuzzMentions(f *testing.F) {
	f.Add("stages.a.outcome == 'x'", "stages")
	f.Add(`r"\" '''stages`, "stages")
	f.Fuzz(func(t *testing.T, expr, name string) {
		if mentions(expr, name) && !strings.Contains(expr, name) {
			t.Errorf("%q doesn't hold %q", expr, name)
		}
	})
}

func TestBackoff(t *testing.T) {
	seconds := func(n float64) pipelines.Duration { return pipelines.Duration(n * float64(time.Second)) }
	tests := []struct {
		name  string
		retry pipelines.Retry
		want  []float64 // seconds
	}{
		{"defaults", pipelines.Retry{}, []float64{5, 10, 20, 40, 60, 60}},
		{"all set", pipelines.Retry{Initial: seconds(2), Factor: 3, Max: seconds(10)}, []float64{2, 6, 10, 10}},
		{"constant", pipelines.Retry{Initial: seconds(2), Factor: 1}, []float64{2, 2, 2}},
		{"a factor that would shrink", pipelines.Retry{Initial: seconds(2), Factor: 0.5}, []float64{2, 4, 8}},
		{"an initial above the default maximum", pipelines.Retry{Initial: seconds(300)}, []float64{300, 300}},
		{"a maximum below the initial", pipelines.Retry{Initial: seconds(30), Max: seconds(10)}, []float64{10, 10}},
	}
	for _, test := range tests {
		for i, want := range test.want {
			if got := backoff(test.retry, i+1).Seconds(); got != want {
				t.Errorf("%s: after try %d it waits %vs, want %vs", test.name, i+1, got, want)
			}
		}
	}
	if got := backoff(pipelines.Retry{Factor: 10}, 100_000); got != DefaultRetryMax {
		t.Errorf("after very many tries it waits %s", got)
	}
}

func TestTimeoutOf(t *testing.T) {
	for kind, want := range map[pipelines.Kind]time.Duration{
		pipelines.KindBuild: DefaultBuildTimeout, pipelines.KindSchedule: DefaultScheduleTimeout, pipelines.KindNetwork: DefaultNetworkTimeout,
		pipelines.KindRun: DefaultRunTimeout, pipelines.KindCollect: DefaultCollectTimeout,
	} {
		if got := timeoutOf(pipelines.Stage{Kind: kind}); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
		if got := timeoutOf(pipelines.Stage{Kind: kind, Timeout: pipelines.Duration(time.Second)}); got != time.Second {
			t.Errorf("%s: its own timeout of 1s became %s", kind, got)
		}
	}
}

func TestCheck(t *testing.T) {
	run := func(name string, needs ...string) pipelines.Stage {
		return pipelines.Stage{Name: name, Kind: pipelines.KindRun, Run: &pipelines.Run{}, Needs: needs, Position: "p.yaml:1"}
	}
	unknown := run("a")
	unknown.OnFailure = "explode"
	tests := []struct {
		name   string
		in     Input
		wanted string // in the error; empty: none
	}{
		{"fine", Input{Run: testRun, Pipeline: pipelines.Resolved{Stages: []pipelines.Stage{run("b", "a"), run("a")}}}, ""},
		{"no run", Input{Pipeline: pipelines.Resolved{Stages: []pipelines.Stage{run("a")}}}, "names no run"},
		{"no stages", Input{Run: testRun}, "no stages"},
		{"no name", Input{Run: testRun, Pipeline: pipelines.Resolved{Stages: []pipelines.Stage{run("")}}}, "unique"},
		{"twice", Input{Run: testRun, Pipeline: pipelines.Resolved{Stages: []pipelines.Stage{run("a"), run("a")}}}, `"a"`},
		{"onFailure", Input{Run: testRun, Pipeline: pipelines.Resolved{Stages: []pipelines.Stage{unknown}}}, `"explode"`},
		{"needs nothing", Input{Run: testRun, Pipeline: pipelines.Resolved{Stages: []pipelines.Stage{run("a", "z")}}}, `"z"`},
		{"needs itself", Input{Run: testRun, Pipeline: pipelines.Resolved{Stages: []pipelines.Stage{run("a", "a")}}}, "needs itself"},
		{"cycle", Input{Run: testRun, Pipeline: pipelines.Resolved{Stages: []pipelines.Stage{run("a"), run("b", "c"), run("c", "a", "b")}}}, `"b"`},
		{"earlier", Input{Run: testRun, Earlier: []stage.Result{{Stage: "gone"}}, Pipeline: pipelines.Resolved{Stages: []pipelines.Stage{run("a")}}}, `"gone"`},
	}
	for _, test := range tests {
		err := check(test.in)
		if test.wanted == "" && err != nil || test.wanted != "" && (err == nil || !strings.Contains(err.Error(), test.wanted)) {
			t.Errorf("%s: got %v, want %q in it", test.name, err, test.wanted)
		}
	}
}

func TestSentence(t *testing.T) {
	p := pipelines.Resolved{Groups: []pipelines.Group{{Name: "eu", Instances: 30}, {Name: "us", Instances: 20}}}
	outcomes := map[string]pipelines.Outcomes{"eu": {Succeeded: 18, Failed: 5, Crashed: 4, Silent: 3}, "us": {Succeeded: 20}}
	tests := []struct {
		result stage.Result
		want   string
	}{
		{stage.Result{Stage: "a"}, `stage "a" — it gave no reason`},
		{stage.Result{Stage: "a", Reason: "no route", Attempt: 1}, `stage "a" — no route`},
		{stage.Result{Stage: "a", Reason: "no route", Attempt: 3}, `stage "a" (attempt 3) — no route`},
		{stage.Result{Stage: "a", Reason: "no route", Failing: []string{"eu/1"}, Outcomes: outcomes}, `stage "a" — 12 of 50 instances did not succeed (eu/1, …): no route`},
		{stage.Result{Stage: "a", Reason: "lost", Failing: []string{"eu/1", "eu/2"}}, `stage "a" — 2 of 50 instances did not succeed (eu/1, eu/2): lost`},
		{stage.Result{Stage: "a", Reason: "2 of 50 (eu/1, eu/2): lost", Failing: []string{"eu/1", "eu/2"}}, `stage "a" — 2 of 50 (eu/1, eu/2): lost`},
		{stage.Result{Stage: "a", Failing: []string{"eu/1"}}, `stage "a" — 1 of 50 instances did not succeed (eu/1)`},
	}
	for _, test := range tests {
		if got := sentence(p, test.result); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

func TestExplain(t *testing.T) {
	cause := temporal.NewApplicationError("connection refused", "")
	for want, err := range map[string]error{
		"plain":              errors.New("plain"),
		"connection refused": cause,
		"the worker was silent for too long (connection refused)": temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_HEARTBEAT, cause),
		"no worker took it up": temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil),
		"the worker did not finish it in time (connection refused)": temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, cause),
	} {
		for _, err := range []error{err, fmt.Errorf("running it: %w", err)} {
			if got := explain(err); got != want && got != "running it: "+want {
				t.Errorf("%v: got %q, want %q", err, got, want)
			}
		}
	}
}

func TestComplete(t *testing.T) {
	in := stage.Input{Stage: pipelines.Stage{Name: "a", Kind: pipelines.KindRun}, Attempt: 2}
	r := stage.Result{Stage: "else", Verdict: stage.Failed, Reason: strings.Repeat("ö", longestReason), Failing: make([]string, 30)}
	complete(&r, in, epoch, epoch.Add(time.Second))
	if r.Stage != "a" || r.Kind != pipelines.KindRun || r.Attempt != 2 || !r.Started.Equal(epoch) || !r.Ended.Equal(epoch.Add(time.Second)) {
		t.Errorf("got %+v", r)
	}
	if len(r.Failing) != 10 || len(r.Reason) > longestReason+4 || strings.ContainsRune(r.Reason, '\uFFFD') {
		t.Errorf("%d names and %d bytes of reason were kept", len(r.Failing), len(r.Reason))
	}
}

func TestOutputOf(t *testing.T) {
	out := Output{Verdict: stage.Cancelled, Reason: "cancelled: before it began"}
	if got, ok := OutputOf(fmt.Errorf("closed: %w", temporal.NewCanceledError(out))); !ok || got.Reason != out.Reason {
		t.Errorf("got %+v, %v", got, ok)
	}
	for _, err := range []error{nil, errors.New("else"), temporal.NewCanceledError()} {
		if _, ok := OutputOf(err); ok {
			t.Errorf("%v has an output", err)
		}
	}
}

// TestCellsFit shows that the record of the largest matrix fits into one payload of 2 MB, base64 or not.
// TestAwaits says for a whole graph who waits for whom, when some of its stages have ended in an earlier execution.
func TestAwaits(t *testing.T) {
	for name, c := range map[string]struct{ stages, ended, want string }{
		"a new run":                        {"a b<a c<b", "", "a: | b:a | c:b"},
		"what has ended is not waited for": {"a b<a c<b", "a", "a: | b: | c:b"},
		"placed anew under two that hold":  {"build place<build one<place two<one three<two", "build one two", "build: | place: | one:place | two:place | three:place"},
		"over two ways":                    {"p q a<p b<q c<a,b", "a b", "p: | q: | a:p | b:q | c:p,q"},
		"what is waited for says enough":   {"place one<place two<one three<two", "one", "place: | one:place | two:place | three:two"},
		"everything has ended":             {"a b<a", "a b", "a: | b:"},
		"a need that is no stage":          {"a<gone", "", "a:gone"},
	} {
		var stages []pipelines.Stage
		for word := range strings.FieldsSeq(c.stages) {
			stageName, needs, _ := strings.Cut(word, "<")
			stages = append(stages, pipelines.Stage{Name: stageName, Needs: strings.FieldsFunc(needs, func(r rune) bool { return r == ',' })})
		}
		held := strings.Fields(c.ended)
		waits := awaits(stages, func(name string) bool { return slices.Contains(held, name) })
		var got []string
		for _, s := range stages {
			got = append(got, s.Name+":"+strings.Join(waits[s.Name], ","))
		}
		if text := strings.Join(got, " | "); text != c.want {
			t.Errorf("%s: got %s, want %s", name, text, c.want)
		}
	}
}

func TestCellsFit(t *testing.T) {
	for _, length := range []int{5, 60, 500} {
		m := matrix{in: MatrixInput{Run: stage.Run{ID: strings.Repeat("r", 63)}}, done: map[int]CellDone{}}
		for i := range 10_000 {
			m.in.Cells = append(m.in.Cells, map[string]any{"version": strings.Repeat("v", length)})
			m.state.Stages = append(m.state.Stages, StageState{Name: m.run(i + 1)})
			d := CellDone{Cell: i + 1, Verdict: stage.Passed}
			if i%2 == 0 {
				d.Verdict, d.Reason = stage.Failed, strings.Repeat("because ", 100)
			}
			m.finish(d)
		}
		encoded, err := json.Marshal(m.record(stage.StatusEnded))
		if err != nil {
			t.Fatal(err)
		}
		if len(encoded) > 1_900_000 {
			t.Errorf("values of %d bytes make a record of %d bytes", length, len(encoded))
		}
		next, err := json.Marshal(m.next().Done)
		if err != nil || len(next) > 700_000 {
			t.Errorf("values of %d bytes hand on %d bytes: %v", length, len(next), err)
		}
		state, err := json.Marshal(m.state)
		if err != nil || len(state) > 1_900_000 {
			t.Errorf("values of %d bytes make a state of %d bytes: %v", length, len(state), err)
		}
		t.Logf("values of %d bytes: a record of %d bytes, %d handed on", length, len(encoded), len(next))
	}
}
