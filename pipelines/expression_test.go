package pipelines

import (
	"fmt"
	"strings"
	"testing"
)

const expressionFile = `pipeline: p
env: [CI, UNSET]
parameters: {peers: 7, factor: 2.5, rtt: 80ms, room: 64Mi, rate: 20Mbit, part: 5%, name: abc, debug: true}
groups:
  eu: {artifact: x, instances: 3, region: west, role: seed}
  eu-west: {artifact: x, instances: 4}
stages:
  - build: {x: {image: y}}
  - schedule: {}
  - {name: warm-up, run: {case: x, events: [{name: split, at: 1s, for: 1s, network: {}}]}}
  - collect: {}
`

func expressionDocument(t testing.TB) *Document {
	t.Helper()
	d, err := Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": expressionFile}, Env: map[string]string{"CI": "yes"}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// evaluateIn compiles an expression for a kind and works it out on the only cell.
func evaluateIn(d *Document, text string, want kind) (any, error) {
	c, faults := compile(text, want, d.isGroup, scopeNames{d.root, contextStage})
	if faults != nil {
		return nil, fmt.Errorf("%s", faults[0].message)
	}
	r := &resolver{doc: d, cell: d.cells[0], faults: &collector{}, values: map[*scope]map[string]any{}}
	r.resolveGroups()
	v, _, err := c.eval(func(ref reference) (any, bool) { return r.lookup(d.root, ref) })
	if err != nil {
		return nil, err
	}
	return want.fit(v)
}

func TestExpressions(t *testing.T) {
	d := expressionDocument(t)
	tests := []struct {
		text string
		kind kind
		want any
	}{
		{"parameters.peers / 2", kindInt, int64(3)},
		{"parameters.peers % 2", kindInt, int64(1)},
		{"-parameters.peers", kindInt, int64(-7)},
		{"parameters.peers / 2.0", kindFloat, 3.5},
		{"parameters.peers * parameters.factor", kindFloat, 17.5},
		{"parameters.peers", kindFloat, 7.0},
		{"int(parameters.peers * parameters.factor)", kindInt, int64(17)},
		{"parameters.rtt / 2", kindDuration, Duration(40e6)},
		{"2 * parameters.rtt", kindDuration, Duration(160e6)},
		{"parameters.rtt * 1.5", kindDuration, Duration(120e6)},
		{"parameters.rtt + duration('20ms') - duration(\"1s\")", kindDuration, Duration(-900e6)},
		{"parameters.rtt / duration('20ms')", kindFloat, 4.0},
		{"double(parameters.rtt)", kindFloat, 0.08},
		{"parameters.room * 2", kindSize, Size(128 << 20)},
		{"bytes('1Gi') - parameters.room", kindSize, Size(960 << 20)},
		{"parameters.rate / 4", kindBandwidth, Bandwidth(5e6)},
		{"int(bandwidth('1kbit'))", kindInt, int64(1000)},
		{"parameters.part * 2", kindShare, Share(0.1)},
		{"share('50%') - parameters.part", kindShare, Share(0.45)},
		{"int(double(parameters.part) * 100.0)", kindInt, int64(5)},
		{"parameters.name + '-' + string(parameters.peers)", kindString, "abc-7"},
		{"string(parameters.rtt) + string(parameters.factor)", kindString, "80ms2.5"},
		{"parameters.rtt", kindText, "80ms"},
		{"parameters.debug", kindText, "true"},
		{"parameters.peers > 2 ? 'many' : 'few'", kindString, "many"},
		{"parameters.peers == 7.0 && parameters.factor != 2", kindBool, true},
		{"parameters.rtt < duration('100ms') && parameters.rate >= bandwidth('20Mbit')", kindBool, true},
		{"parameters.name in ['abc', 'd'] && parameters.name.startsWith('a')", kindBool, true},
		{"[1, 2, 3].exists(x, x == parameters.peers - 4)", kindBool, true},
		{"size([1, 2] + [3])", kindInt, int64(3)},
		{"groups.eu-west.instances - groups.eu.instances", kindInt, int64(1)},
		{"groups[\"eu-west\"].instances-1", kindInt, int64(3)},
		{"groups.eu.region + groups.eu.role + groups.eu.artifact", kindString, "westseedx"},
		{"env.CI + env.UNSET", kindString, "yes"},
		{"has(env.UNSET) || !has(env.CI)", kindBool, false},
		{"'parameters.nope' + r'\\d' // parameters.nope", kindString, "parameters.nope\\d"},
		{"0.5", kindCores, int64(500)},
		{"'50m'", kindCores, int64(50)},
		{"int('12') + int(2.9)", kindInt, int64(14)},
		{"double('1.5') + double(1)", kindFloat, 2.5},
	}
	for _, tt := range tests {
		if got, err := evaluateIn(d, tt.text, tt.kind); err != nil || got != tt.want {
			t.Errorf("%s: got %T %v (%v), want %v", tt.text, got, got, err, tt.want)
		}
	}
}

func TestExpressionsRefused(t *testing.T) {
	d := expressionDocument(t)
	tests := []struct {
		text string
		kind kind
		want string
	}{
		{"parameters.rtt", kindInt, "gives a duration where an integer is needed"},
		{"10", kindDuration, "multiply it by duration"},
		{"parameters.peers / 0", kindInt, "division by zero"},
		{"parameters.peers / 0.0", kindFloat, "division by zero"},
		{"parameters.rtt / 0", kindDuration, "division by zero"},
		{"parameters.rtt / (parameters.rtt - parameters.rtt)", kindFloat, "division by zero"},
		{"9223372036854775807 + parameters.peers", kindInt, "overflow"},
		{"duration('200000h') * 1000000000", kindDuration, "out of range"},
		{"duration('2000000h') + duration('2000000h')", kindDuration, "out of range"},
		{"parameters.room * 1.0e30", kindSize, "out of range"},
		{"parameters.part * 30", kindShare, "outside of 0% to 100%"},
		{"parameters.part - share('50%')", kindShare, "outside of 0% to 100%"},
		{"duration('10')", kindDuration, "has no unit"},
		{"int('x')", kindInt, "is not an integer"},
		{"int(1.0e30)", kindInt, "does not fit"},
		{"double('x')", kindFloat, "is not a number"},
		{"parameters.rtt == 80", kindBool, "can't be applied to a duration and an integer"},
		{"parameters.name == 7", kindBool, "can't be applied to a text and an integer"},
		{"parameters.rtt + parameters.room", kindDuration, "can't be applied to a duration and a size"},
		{"!parameters.peers", kindBool, "`!` can't be applied to an integer"},
		{"parameters.name.foo", kindString, "has nothing called `foo`"},
		{"parameters", kindString, "is no value by itself"},
		{"groups.eu", kindString, "is no value by itself"},
		{"groups.eu.size", kindInt, "has nothing called `size`"},
		{"metrics.x.p95", kindFloat, "not known before the run"},
		{"secrets.X", kindString, "notify"},
		{"env.HOME", kindString, "not listed"},
		{"matrix.x", kindInt, "unknown axis"},
		{"peers + 1", kindInt, "unknown name `peers`"},
		{"_i0", kindInt, "reserved"},
		{"", kindInt, "empty"},
		{"1 +", kindInt, "not a valid expression"},
		{"foo(1)", kindInt, "unknown name `foo`"},
		{"timestamp('2020-01-01T00:00:00Z')", kindString, "unknown name"},
		{strings.Repeat("1+", 3000) + "1", kindInt, "at most 4096 bytes"},
		{"[1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, [1,2,3,4,5,6,7,8,9,10].map(c, [1,2,3,4,5,6,7,8,9,10].map(d, a+b+c+d)))).size()", kindInt, "takes too long"},
		{"'abc'.matches('(')", kindBool, "error parsing regexp"},
		{strings.Repeat("parameters.peers+", 65) + "1", kindInt, "at most 64 names"},
	}
	for _, tt := range tests {
		got, err := evaluateIn(d, tt.text, tt.kind)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60s: got %v, error %v, want %q", tt.text, got, err, tt.want)
		}
	}
}

func TestReferences(t *testing.T) {
	isGroup := func(name string) bool { return name == "eu-west" }
	tests := []struct{ text, want string }{
		{"metrics.a-b.p95 - metrics.c.p50", "metrics[a-b p95] metrics[c p50]"},
		{"metrics.x.p95-metrics.y.p95", "metrics[x p95] metrics[y p95]"},
		{"metrics.eu-west.time-to-x.p95-1.0", "metrics[eu-west time-to-x p95]"},
		{"metrics.x.during.net-split.p99", "metrics[x during net-split p99]"},
		{"metrics.x.after.net-split.p99-metrics.eu-west.x.before.net-split.p50", "metrics[x after net-split p99] metrics[eu-west x before net-split p50]"},
		{"metrics.after.p99-1", "metrics[after p99]"},
		{`metrics["a.b"].p95`, "metrics[a.b p95]"},
		{"outcomes.eu-west.failed-1", "outcomes[eu-west failed]"},
		{"parameters.a-parameters.b", "parameters[a] parameters[b]"},
		{"parameters.name.startsWith('parameters.x')", "parameters[name]"},
		{"x.parameters.a", ""},
		{"'''parameters.a''' + \"\\\"parameters.b\"", ""},
		{"has(metrics.x) && has( env.CI )", "metrics[x]? env[CI]?"},
		{"parameters [\"a\"]", "parameters[]"},
		{"// parameters.a\nmatrix.b", "matrix[b]"},
	}
	for _, tt := range tests {
		var got []string
		for _, r := range references(tt.text, isGroup) {
			text := fmt.Sprintf("%s%v", r.root, r.segments)
			if r.presence {
				text += "?"
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %v, want %s", tt.text, got, tt.want)
		}
	}
}

func TestEvaluate(t *testing.T) {
	in := Inputs{
		Parameters: map[string]any{"peers": float64(995), "ratio": 0.25, "name": "abc", "on": true}, // as JSON leaves them
		Cell:       map[string]any{"mode": "fast"},
		Env:        map[string]string{"CI": "true"},
		Groups:     []Group{{Name: "us", Instances: 498}, {Name: "eu-west", Instances: 2}},
	}
	v := Variables{
		Stages: map[string]string{"warm-up": "passed"},
		Metrics: map[string]Summary{"rtt": {Count: 3, P95: 2.41, Sum: 6}, "eu-west.rtt": {P50: 1}, "rtt.during.split": {P99: 5},
			"rtt.before.split": {P50: 2}, "eu-west.rtt.after.split": {P50: 3},
			"with.dots": {Max: 4}, "lookup_seconds": {}},
		Outcomes: map[string]Outcomes{"us": {Succeeded: 490, Failed: 8}},
	}
	tests := []struct {
		expr        string
		holds       bool
		explanation string
		err         string
	}{
		{"metrics.rtt.p95 < 2.0", false, "metrics.rtt.p95 = 2.41", ""},
		{"metrics.rtt.sum == 6 && metrics.rtt.count > 2", true, "metrics.rtt.sum = 6, metrics.rtt.count = 3", ""},
		{"metrics.rtt.p95 < 3 && metrics.rtt.p95 > 1", true, "metrics.rtt.p95 = 2.41", ""},
		{"metrics.eu-west.rtt.p50 == 1.0", true, "metrics.eu-west.rtt.p50 = 1", ""},
		{"metrics.rtt.during.split.p99 >= 5", true, "metrics.rtt.during.split.p99 = 5", ""},
		{"metrics.eu-west.rtt.after.split.p50 > metrics.rtt.before.split.p50", true,
			"metrics.eu-west.rtt.after.split.p50 = 3, metrics.rtt.before.split.p50 = 2", ""},
		{`metrics["with.dots"].max == 4`, true, `metrics["with.dots"].max = 4`, ""},
		{"outcomes.us.succeeded >= 490", true, "outcomes.us.succeeded = 490", ""},
		{"outcomes.eu-west.silent == 0", true, "outcomes.eu-west.silent = 0", ""},
		{"outcomes.us.succeeded + outcomes.us.failed + outcomes.us.crashed == groups.us.instances", true,
			"outcomes.us.succeeded = 490, outcomes.us.failed = 8, outcomes.us.crashed = 0, groups.us.instances = 498", ""},
		{"stages.warm-up.outcome == 'passed'", true, `stages.warm-up.outcome = "passed"`, ""},
		{"parameters.peers / 2 == 497 && parameters.ratio < 1 && parameters.on", true, "parameters.peers = 995, parameters.ratio = 0.25, parameters.on = true", ""},
		{"matrix.mode == 'fast' && env.CI == 'true'", true, `matrix.mode = "fast", env.CI = "true"`, ""},
		{"has(metrics.rtt) && !has(metrics.none)", true, "metrics.rtt is there, metrics.none is missing", ""},
		{"true || metrics.none.p95 > 1", true, "metrics.none.p95 is missing", ""},
		{"metrics.lookup_second.p95 < 1", false, "metrics.lookup_second.p95 is missing", "unknown metric `lookup_second`: no instance reported it (did you mean `lookup_seconds`?)"},
		{"metrics.zzz.p95 < 1", false, "metrics.zzz.p95 is missing", "known: eu-west.rtt, eu-west.rtt.after.split, lookup_seconds, rtt, rtt.before.split, rtt.during.split, with.dots"},
		{"stages.gather.outcome == 'passed'", false, "stages.gather.outcome is missing", "the stage `gather` has not ended (known: warm-up)"},
		{"outcomes.asia.failed == 0", false, "", "unknown group `asia`"},
		{"parameters.nope", false, "", "unknown parameter `nope`"},
		{"metrics.rtt.p96 < 1", false, "", "no figure `p96`"},
		{"metrics.rtt.p95", false, "", "where true or false is needed"},
		{"secrets.X == 'a'", false, "", "a secret can only be used"},
		{"duration('80ms') < duration('1s')", true, "", ""},
	}
	for _, tt := range tests {
		holds, explanation, err := Evaluate(tt.expr, in, v)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.expr, err, tt.err)
			}
		} else if err != nil || holds != tt.holds {
			t.Errorf("%s: got %v (%v)", tt.expr, holds, err)
		}
		if explanation != tt.explanation {
			t.Errorf("%s: explained as %q, want %q", tt.expr, explanation, tt.explanation)
		}
	}
}

// What a document freezes must evaluate, after JSON, as it was type-checked.
func TestFrozenExpressions(t *testing.T) {
	text := `pipeline: p
parameters: {limit: 2.0, rtt: 80ms, peers: 4, big: 9007199254740993}
groups: {a: {artifact: x, instances: 1}}
stages:
  - build: {x: {image: y}}
  - schedule: {}
  - run: {case: x}
    when: parameters.limit / 4 == 0.5 && parameters.peers / 8 == 0 && parameters.rtt == duration("80ms") && parameters.big % 2 == 1
`
	d, err := loadText(text)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	// A plain map, as it travels between worker and activities: integers become floats.
	parameters := map[string]any{"limit": 2.0, "rtt": "80ms", "peers": 4.0, "big": 9007199254740992.0}
	holds, explanation, err := Evaluate(r.Stages[2].When, Inputs{Parameters: parameters, Groups: r.Groups}, Variables{})
	if err != nil || !holds {
		t.Errorf("`%s` gives %v (%v): %s", r.Stages[2].When, holds, err, explanation)
	}
}
