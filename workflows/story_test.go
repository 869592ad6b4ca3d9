package workflows

import (
	"flag"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

var update = flag.Bool("update", false, "write the golden courses of the stories anew")

// A story is a file of testdata/stories: a sentence, the scenario, and the course of events that it leads to.
//
//	-- scenario --
//	matrix rtt=20ms,80ms max=2                  makes it a RunMatrix
//	suite FILE[:continue] … [on=failed,passed]  makes it a RunSuite of these pipelines, and who is told of what
//	stage NAME KIND [needs=a,b|none] [timeout=1m] [onFailure=hold] [holdFor=1h] [retry=3] [initial=5s] [factor=2] [max=1m] [on=failed] [when=EXPR]
//	earlier STAGE VERDICT ATTEMPT               a result of an earlier execution that still holds
//	from RUN                                    a fork: the earlier results before it are those of that run
//	tried STAGE VERDICT ATTEMPT                 an attempt of an earlier execution
//	done CELL VERDICT                           a cell that an earlier execution finished
//	suggest                                     the server suggests to continue as new, from the beginning
//	continued [STAGE]                           continued as new, with the run aborted by STAGE
//	answer CALL TAKES VERDICT [REASON] [failing=a/1,b/2]
//	answer CALL TAKES error|fatal|panic|timeout MESSAGE
//	answer suite-load TAKES fault MESSAGE       of a suite: the next pipeline's file is wrong
//	at TIME cancel
//	at TIME suggest
//	at TIME state
//	at TIME decide ACTION [STAGE]
//
// CALL is a stage, halt, release, record, take or resolve, for a cell with `RUN/` before it. Answers to the same call are given
// in their order; a call without one takes 10s and passes (halt, release, record, take, resolve: 1s).
type story struct {
	in        Input
	matrix    *MatrixInput
	suite     *SuiteInput
	suggest   bool
	continued bool
	answers   []answer
	actions   []action
}

type answer struct {
	call    string
	takes   time.Duration
	what    string // a verdict, or error, fatal, panic, timeout
	reason  string
	failing []string
}

type action struct {
	at    time.Duration
	words []string
}

// testSuite is the suite of every story that has one, and testTurn the id of its turn.
const (
	testSuite = "nightly"
	testTurn  = "20260101-000000"
)

// testRun is the run of every story.
var testRun = stage.Run{ID: "r1", Ground: "local", Root: "/repo", Commit: "abc123", Suite: "nightly"}

func readStory(t *testing.T, path string) (*txtar.Archive, story) {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.Files) == 0 || archive.Files[0].Name != "scenario" {
		t.Fatalf("%s: the first section must be the scenario", path)
	}
	s := story{in: Input{Run: testRun, Pipeline: pipelines.Resolved{
		Name: "demo", Seed: 7, Groups: []pipelines.Group{{Name: "eu", Instances: 30}, {Name: "us", Instances: 20}},
	}}}
	for n, line := range strings.Split(string(archive.Files[0].Data), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := s.read(words(line)); err != nil {
			t.Fatalf("%s: line %d of the scenario: %v: %s", path, n+1, err, line)
		}
	}
	if s.matrix != nil {
		s.matrix.Pipeline = s.in.Pipeline
	}
	return archive, s
}

func (s *story) read(w []string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	switch w[0] {
	case "stage":
		s.readStage(w[1:])
	case "matrix":
		s.readMatrix(w[1:])
	case "suite":
		s.readSuite(w[1:])
	case "earlier":
		s.in.Earlier = append(s.in.Earlier, s.result(w[1:]))
	case "from":
		s.in.Run.From = w[1]
		for i := range s.in.Earlier {
			s.in.Earlier[i].From = w[1]
		}
	case "tried":
		s.in.Tries = append(s.in.Tries, s.result(w[1:]))
	case "done":
		s.matrix.Done = append(s.matrix.Done, CellDone{Cell: number(w[1]), Verdict: stage.Verdict(w[2])})
	case "suggest":
		s.suggest = true
	case "continued":
		s.continued = true
		if len(w) > 1 {
			s.in.Aborted = w[1]
		}
	case "answer":
		a := answer{call: w[1], takes: duration(w[2]), what: w[3]}
		for _, word := range w[4:] {
			if names, ok := strings.CutPrefix(word, "failing="); ok {
				a.failing = strings.Split(names, ",")
			} else {
				a.reason = word
			}
		}
		s.answers = append(s.answers, a)
	case "at":
		s.actions = append(s.actions, action{at: duration(w[1]), words: w[2:]})
	default:
		return fmt.Errorf("unknown word %q", w[0])
	}
	return nil
}

func (s *story) readStage(w []string) {
	st := pipelines.Stage{Name: w[0], Kind: pipelines.Kind(w[1]), Position: "demo.yaml:" + strconv.Itoa(len(s.in.Pipeline.Stages)+1)}
	if before := len(s.in.Pipeline.Stages); before > 0 {
		st.Needs = []string{s.in.Pipeline.Stages[before-1].Name}
	}
	switch st.Kind {
	case pipelines.KindBuild:
		st.Build = map[string]pipelines.Source{"peer": {Go: &pipelines.GoSource{Module: "."}}}
	case pipelines.KindSchedule:
		st.Schedule = &pipelines.Schedule{Groups: []string{"eu", "us"}}
	case pipelines.KindNetwork:
		st.Network = &pipelines.Network{}
	case pipelines.KindRun:
		st.Run = &pipelines.Run{Groups: []string{"eu", "us"}, Case: "ok"}
	case pipelines.KindCollect:
		st.Collect = &pipelines.Collect{Outputs: true}
	}
	for _, word := range w[2:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "needs":
			st.Needs = strings.Split(value, ",")
			if value == "none" {
				st.Needs = nil
			}
		case "timeout":
			st.Timeout = pipelines.Duration(duration(value))
		case "onFailure":
			st.OnFailure = value
		case "holdFor":
			st.HoldFor = pipelines.Duration(duration(value))
		case "retry":
			st.Retry.Attempts = number(value)
		case "initial":
			st.Retry.Initial = pipelines.Duration(duration(value))
		case "factor":
			st.Retry.Factor = float64(number(value))
		case "max":
			st.Retry.Max = pipelines.Duration(duration(value))
		case "on":
			st.Retry.On = []string{value}
		case "when":
			st.When = value
		case "empty":
			st.Run = nil
		default:
			panic("unknown key " + key)
		}
	}
	s.in.Pipeline.Stages = append(s.in.Pipeline.Stages, st)
}

func (s *story) readMatrix(w []string) {
	m := &MatrixInput{Run: testRun, Bundle: pipelines.Bundle{File: "demo.yaml"}}
	m.Cells = []map[string]any{{}}
	for _, word := range w {
		axis, values, _ := strings.Cut(word, "=")
		if axis == "max" {
			m.MaxParallel = number(values)
			continue
		}
		var grown []map[string]any
		for _, cell := range m.Cells {
			for _, value := range strings.Split(values, ",") {
				next := map[string]any{axis: value}
				for k, v := range cell {
					next[k] = v
				}
				grown = append(grown, next)
			}
		}
		m.Cells = grown
	}
	s.matrix = m
}

func (s *story) readSuite(w []string) {
	s.suite = &SuiteInput{
		Suite:  pipelines.Suite{Name: testSuite, File: "nightly.yaml", Schedule: pipelines.SuiteSchedule{Cron: "0 0 * * *", Timezone: "UTC"}},
		Ground: "local", Root: "/repo", Host: "here",
	}
	for _, word := range w {
		if on, ok := strings.CutPrefix(word, "on="); ok {
			s.suite.Suite.Notify = &pipelines.Notify{Webhook: "=secrets.URL", On: strings.Split(on, ",")}
			continue
		}
		file, onFailure, _ := strings.Cut(word, ":")
		s.suite.Suite.Pipelines = append(s.suite.Suite.Pipelines, pipelines.SuitePipeline{File: file, OnFailure: onFailure})
	}
}

func (s *story) result(w []string) stage.Result {
	r := stage.Result{Stage: w[0], Verdict: stage.Verdict(w[1]), Attempt: number(w[2]), Started: epoch, Ended: epoch}
	for _, st := range s.in.Pipeline.Stages {
		if st.Name == r.Stage {
			r.Kind = st.Kind
		}
	}
	if r.Kind == pipelines.KindBuild {
		r.Artifacts = built
	}
	return r
}

// words splits a line at blanks; quotes keep blanks together and are taken away.
func words(line string) []string {
	quote := rune(0)
	fields := strings.FieldsFunc(line, func(c rune) bool {
		switch {
		case quote == 0 && c == '`':
			quote = c
		case c == quote:
			quote = 0
		}
		return quote == 0 && unicode.IsSpace(c)
	})
	for i := range fields {
		fields[i] = strings.ReplaceAll(fields[i], "`", "")
	}
	return fields
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}

func stories(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	return paths
}
