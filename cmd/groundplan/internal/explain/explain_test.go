package explain

import (
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
)

// graph makes stages of lines "name: need need".
func graph(lines string) []pipelines.Stage {
	var out []pipelines.Stage
	for line := range strings.FieldsFuncSeq(lines, func(r rune) bool { return r == '\n' || r == ';' }) {
		name, needs, _ := strings.Cut(line, ":")
		out = append(out, pipelines.Stage{Name: strings.TrimSpace(name), Needs: strings.Fields(needs)})
	}
	return out
}

func TestDraw(t *testing.T) {
	cases := []struct{ name, stages string }{
		{"one", "a"},
		{"chain", "a; b: a; c: b"},
		{"two roots", "a; b; c: a b"},
		{"diamond", "a; b: a; c: a; d: b c"},
		{"three ways", "a; b: a; c: a; d: a; e: b c d"},
		{"skip", "a; b: a; c: a b; d: c a"},
		{"loose", "a; b; c"},
		{"nested", "a; b: a; c: a; d: b; e: b; f: d e; g: c f"},
		{"out of order", "c: b; b: a; a"},
		{"circle", "a: b; b: a"},
	}
	var b strings.Builder
	for _, c := range cases {
		b.WriteString("--- " + c.name + ": " + c.stages + "\n")
		for _, row := range draw(graph(c.stages)) {
			b.WriteString(row.graph)
			if row.stage != nil {
				b.WriteString("  " + row.stage.Name)
			}
			b.WriteString("\n")
		}
	}
	golden.Compare(t, "testdata/graphs.golden", b.String())
}

func TestEveryStageIsDrawnBelowItsNeeds(t *testing.T) {
	stages := graph("g: e f; f: b; e: c d; d: a; c: a; b: a; a")
	seen := map[string]bool{}
	for _, row := range draw(stages) {
		if row.stage == nil {
			continue
		}
		for _, need := range row.stage.Needs {
			if !seen[need] {
				t.Errorf("%s stands above %s", row.stage.Name, need)
			}
		}
		seen[row.stage.Name] = true
	}
	if len(seen) != len(stages) {
		t.Errorf("%d of %d stages drawn", len(seen), len(stages))
	}
}

func ptr[T any](v T) *T { return &v }

func seconds(n int) pipelines.Duration { return pipelines.Duration(time.Duration(n) * time.Second) }

func TestTimeline(t *testing.T) {
	drop := &pipelines.Network{Links: []pipelines.Link{{From: "eu", To: "us", Shape: pipelines.Shape{Policy: "drop"}}, {From: "us", To: "eu", Shape: pipelines.Shape{Policy: "drop"}}}}
	events := []pipelines.Event{
		{Name: "late", At: pipelines.Anchor{State: "half-done", Offset: seconds(5)}, Pause: &pipelines.Choice{Group: "boot", Indices: []int{0, 3}, For: seconds(10)}},
		{Name: "churn", At: pipelines.Anchor{Event: "split", Healed: true, Offset: seconds(10)}, Kill: &pipelines.Choice{Group: "eu", Share: ptr(pipelines.Share(0.05))}, Restart: seconds(20)},
		{Name: "split", At: pipelines.Anchor{Offset: seconds(30)}, For: seconds(30), Network: drop},
		{Name: "after", At: pipelines.Anchor{Event: "late", Offset: seconds(1)}, Kill: &pipelines.Choice{Group: "us", Count: 2}},
	}
	var b strings.Builder
	for _, e := range timeline(events) {
		b.WriteString(e.when + " | " + e.name + " | " + e.what + "\n")
	}
	want := `30s | split | eu ↔ us: drop, for 30s
1m | split | healed
1m10s | churn | kill 5% of eu, restart after 20s
at state half-done + 5s | late | pause boot/0, boot/3 for 10s
at late + 1s | after | kill 2 of us
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestShape(t *testing.T) {
	full := pipelines.Shape{
		Latency: ptr(pipelines.Duration(5 * time.Millisecond)), Jitter: ptr(pipelines.Duration(time.Microsecond)), Distribution: "normal",
		Loss: ptr(pipelines.Share(0.001)), Bandwidth: ptr(pipelines.Bandwidth(50e6)), Queue: ptr(int64(100)), Policy: "accept",
	}
	if got, want := shape(full), "latency 5ms, jitter 1us, distribution normal, loss 0.1%, bandwidth 50Mbit, queue 100 packets, accept"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := shape(pipelines.Shape{}); got != "as it is" {
		t.Errorf("%q", got)
	}
}

func TestLinksOneWay(t *testing.T) {
	got := links([]pipelines.Link{
		{From: "a", To: "b", Shape: pipelines.Shape{Policy: "drop"}},
		{From: "b", To: "a", Shape: pipelines.Shape{Policy: "reject"}},
		{From: "c", To: "c", Shape: pipelines.Shape{Policy: "drop"}},
		{From: "c", To: "c", Shape: pipelines.Shape{Policy: "drop"}},
	})
	want := "a → b: drop\nb → a: reject\nc → c: drop\nc → c: drop"
	if strings.Join(got, "\n") != want {
		t.Errorf("%q", got)
	}
}

func TestNeeds(t *testing.T) {
	r := pipelines.Resolved{Name: "p", Groups: []pipelines.Group{
		{Name: "a", Instances: 10, Memory: 64 << 20, CPU: 50}, {Name: "b", Instances: 5},
	}, Stages: []pipelines.Stage{
		{Name: "build", Kind: pipelines.KindBuild, Build: map[string]pipelines.Source{
			"x": {Go: &pipelines.GoSource{Module: ".", Package: "./x", Replace: map[string]string{"m": "v1"}, Require: map[string]string{"n": "v2"}}},
			"y": {Image: &pipelines.ImageSource{Ref: "redis:7"}}, "z": {NPM: &pipelines.NPMSource{Dir: "js"}}, "w": {Dockerfile: &pipelines.DockerfileSource{Context: "img"}},
		}},
	}}
	cells := []map[string]any{{"n": 1}, {"n": 2}, {"n": 3}}
	text := Text(&terminal.Terminal{}, r, cells, 2)
	for _, want := range []string{
		"15 in each of 2 cells at once", "1.2 GiB for the groups that declare it", "1.00 cores", "w, x, y, z", "3 cells, at most 2 at once",
		"x from go ./x in ., m replaced by v1, n at v2", "y from image redis:7", "z from npm in js", "w from Dockerfile in img",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
