package worker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/groundplan/groundplan/activities"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// suiteConfig is that of a session whose turns read real files, and whose stages are stand-ins.
func suiteConfig(home runs.Home) Config {
	config := testConfig(home)
	register := config.Register
	config.Register = func(c Config, r sdkworker.Registry) error {
		activities.RegisterSuites(r, &activities.Suites{Home: home})
		return register(c, r)
	}
	return config
}

// suiteOf is a suite of pipelines whose run stages have these names; see acts.
func suiteOf(t *testing.T, name, cron string, stages ...string) runs.Suite {
	t.Helper()
	root := t.TempDir()
	s := runs.Suite{Ground: GroundLocal, Root: root, Suite: pipelines.Suite{Name: name, File: name + ".yaml"}}
	s.Suite.Schedule = pipelines.SuiteSchedule{Cron: cron, Timezone: "UTC", Overlap: "skip", CatchUp: pipelines.Duration(time.Minute)}
	for _, st := range stages {
		text := "pipeline: " + st + "\ngroups: {a: {artifact: x, instances: 1}}\nstages:\n  - {name: ok-build, build: {x: {image: y}}}\n" +
			"  - {name: ok-place, schedule: {}}\n  - {name: " + st + ", run: {case: x}}\n"
		if err := os.WriteFile(filepath.Join(root, st+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Suite.Pipelines = append(s.Suite.Pipelines, pipelines.SuitePipeline{File: st + ".yaml", OnFailure: pipelines.OnFailureContinue})
	}
	return s
}

func create(t *testing.T, s *Session, suite runs.Suite) SuiteChange {
	t.Helper()
	change, err := s.CreateSuite(t.Context(), suite)
	if err != nil {
		t.Fatal(err)
	}
	return change
}

// far is a time at which no test runs.
const far = "0 0 1 1 *"

func TestSuites(t *testing.T) {
	home := runs.Home(t.TempDir())
	s := openSession(t, suiteConfig(home))
	for name, test := range map[string]func(*testing.T, *Session, runs.Home){
		"created and changed":           testSuiteCreate,
		"a turn by hand":                testSuiteTrigger,
		"one turn at a time":            testSuiteBusy,
		"turns that were due":           testSuiteBackfill,
		"paused":                        testSuitePause,
		"deleted":                       testSuiteDelete,
		"unknown suites":                testSuiteUnknown,
		"of names that don't fit":       testSuiteNames,
		"a turn that is ended by force": testSuiteTerminated,
	} {
		t.Run(name, func(t *testing.T) { test(t, s, home) })
	}
}

func testSuiteCreate(t *testing.T, s *Session, home runs.Home) {
	suite := suiteOf(t, "create", far, "ok-a")
	change := create(t, s, suite)
	if !change.Created || change.Status.Next.IsZero() || !change.Status.Here || change.Status.Paused || len(change.Status.Pipelines) != 1 {
		t.Errorf("created: %+v", change)
	}
	if again := create(t, s, suite); again.Created || len(again.Changes) != 0 {
		t.Errorf("created again as it is: %+v", again)
	}
	suite.Suite.Schedule.Cron, suite.Suite.Schedule.Jitter = "30 1 * * *", pipelines.Duration(time.Minute)
	suite.Suite.Pipelines[0].Set = map[string]string{"n": "2"}
	suite.Suite.Notify = &pipelines.Notify{Webhook: "=secrets.URL", On: []string{"failed"}}
	suite.Paused, suite.Note = true, "holidays"
	change = create(t, s, suite)
	want := []string{
		"cron: 0 0 1 1 * → 30 1 * * *", "jitter: 0s → 1m", "pipelines: ok-a.yaml (continue) → ok-a.yaml map[n:2] (continue)",
		"notify: none → {Webhook:=secrets.URL On:[failed] Secret:}", "paused",
	}
	if !slices.Equal(change.Changes, want) || !change.Status.Paused || change.Status.Note != "holidays" {
		t.Errorf("changed: %q, %+v", change.Changes, change.Status)
	}
	suite.Paused, suite.Note = false, "" // it stays paused until somebody says otherwise
	if change = create(t, s, suite); !change.Status.Paused || len(change.Changes) != 0 {
		t.Errorf("created again while paused: %+v", change)
	}
	kept, err := home.ReadSuite("create")
	if err != nil || !kept.Paused || kept.Created.IsZero() || kept.Changed.Before(kept.Created) || kept.Suite.Schedule.Cron != "30 1 * * *" {
		t.Errorf("kept: %+v, %v", kept, err)
	}
	all, err := s.Suites(t.Context())
	if err != nil || !slices.ContainsFunc(all, func(s SuiteStatus) bool { return s.Name == "create" && s.Ground == GroundLocal }) {
		t.Errorf("the list is %+v, %v", all, err)
	}
}

func trigger(t *testing.T, s *Session, name, overlap string) *Turn {
	t.Helper()
	turn, err := s.TriggerSuite(t.Context(), name, overlap)
	if err != nil {
		t.Fatal(err)
	}
	return turn
}

func waitTurn(t *testing.T, turn *Turn) workflows.SuiteOutput {
	t.Helper()
	out, err := turn.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func testSuiteTrigger(t *testing.T, s *Session, home runs.Home) {
	create(t, s, suiteOf(t, "hand", far, "ok-a", "fail-b"))
	turn := trigger(t, s, "hand", "")
	out := waitTurn(t, turn)
	if out.Verdict != stage.Failed || !slices.Equal(out.News, []string{runs.NewsFailed}) {
		t.Errorf("it came to %+v", out)
	}
	state, err := turn.State(t.Context())
	if err != nil || state.ID != out.Turn || state.Status != stage.StatusEnded || len(state.Runs) != 2 {
		t.Errorf("its state is %+v, %v", state, err)
	}
	record, err := home.ReadSuiteTurn("hand", out.Turn)
	if err != nil || record.Trigger != runs.TriggerPerson || !record.Due.IsZero() || record.Runs[1].Since != out.Turn || record.Execution == "" {
		t.Errorf("its record is %+v, %v", record, err)
	}
	rows, err := s.List(t.Context(), Filter{Suite: "hand"}) // not as cells, whose parent would be the turn
	if err != nil || len(rows) != 2 || rows[0].Parent != "" || rows[1].ID != "hand."+out.Turn+".1" {
		t.Errorf("the list of runs is %+v, %v", rows, err)
	}
	status, err := s.Suite(t.Context(), "hand")
	if err != nil || status.Last == nil || status.Last.ID != out.Turn {
		t.Errorf("its last turn is %+v, %v", status.Last, err)
	}
}

// underWay waits until a run of a turn is.
func underWay(t *testing.T, turn *Turn) stage.Turn {
	t.Helper()
	for range 500 {
		state, err := turn.State(t.Context())
		if err == nil && slices.ContainsFunc(state.Runs, func(r stage.TurnRun) bool { return r.Run != "" && r.Verdict == "" }) {
			return state
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the turn has begun no run")
	return stage.Turn{}
}

func testSuiteBusy(t *testing.T, s *Session, _ runs.Home) {
	create(t, s, suiteOf(t, "busy", far, "stuck-a", "ok-b"))
	turn := trigger(t, s, "busy", "")
	underWay(t, turn)
	if _, err := s.TriggerSuite(t.Context(), "busy", ""); !errors.Is(err, ErrSuiteBusy) || !strings.Contains(err.Error(), "suite cancel busy") {
		t.Errorf("a second turn: %v", err)
	}
	beside := trigger(t, s, "busy", "allow-all")
	underWay(t, beside)
	cancelled, err := s.CancelSuite(t.Context(), "busy")
	if err != nil || len(cancelled) != 2 {
		t.Fatalf("cancelled %d, %v", len(cancelled), err)
	}
	for _, turn := range []*Turn{turn, beside} {
		out := waitTurn(t, turn)
		if out.Verdict != stage.Cancelled || !strings.Contains(out.Reason, "while stuck-a ran; 0 of 2 pipelines had passed") || len(out.News) > 0 {
			t.Errorf("it came to %+v", out)
		}
	}
	for range 200 { // the schedule hears of their end a moment later
		if _, err = s.CancelSuite(t.Context(), "busy"); errors.Is(err, ErrNoTurn) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("cancelling when nothing is under way: %v", err)
}

func testSuiteBackfill(t *testing.T, s *Session, home runs.Home) {
	create(t, s, suiteOf(t, "back", "0 3 * * *", "ok-a"))
	to := time.Now().UTC().Truncate(24 * time.Hour)
	due, err := s.BackfillSuite(t.Context(), "back", to.AddDate(0, 0, -3), to, "buffer-all")
	if err != nil || len(due) != 3 {
		t.Fatalf("due were %v, %v", due, err)
	}
	var turns []runs.SuiteTurn
	for range 1000 {
		turns, err = home.ReadSuiteTurns("back")
		if err != nil {
			t.Fatal(err)
		}
		if len(turns) == 3 && turns[0].Status == stage.StatusEnded {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if len(turns) != 3 {
		t.Fatalf("turns %+v", turns)
	}
	for i, turn := range turns { // the newest first
		if want := due[2-i]; turn.Trigger != runs.TriggerBackfill || !turn.Due.Equal(want) || turn.ID != want.Format("20060102-150405") || turn.Verdict != stage.Passed {
			t.Errorf("got %+v, due %v", turn, want)
		}
	}
	if due, err := s.BackfillSuite(t.Context(), "back", to.Add(time.Hour), to.Add(2*time.Hour), "skip"); err != nil || due != nil {
		t.Errorf("where none was due: %v, %v", due, err)
	}
	if _, err := s.BackfillSuite(t.Context(), "back", to.AddDate(-1, 0, 0), to, "skip"); err == nil || !strings.Contains(err.Error(), "more than 100") {
		t.Errorf("a whole year: %v", err)
	}
}

func testSuitePause(t *testing.T, s *Session, home runs.Home) {
	create(t, s, suiteOf(t, "pause", far, "ok-a"))
	if err := s.PauseSuite(t.Context(), "pause", "moving house"); err != nil {
		t.Fatal(err)
	}
	status, err := s.Suite(t.Context(), "pause")
	kept, fault := home.ReadSuite("pause")
	if err != nil || fault != nil || !status.Paused || status.Note != "moving house" || !status.Next.IsZero() || !kept.Paused {
		t.Errorf("paused: %+v, %v; kept %+v, %v", status, err, kept, fault)
	}
	if out := waitTurn(t, trigger(t, s, "pause", "")); out.Verdict != stage.Passed {
		t.Errorf("by hand while paused: %+v", out)
	}
	if err := s.UnpauseSuite(t.Context(), "pause", ""); err != nil {
		t.Fatal(err)
	}
	status, err = s.Suite(t.Context(), "pause")
	kept, fault = home.ReadSuite("pause")
	if err != nil || fault != nil || status.Paused || status.Next.IsZero() || kept.Paused || kept.Note != "" || status.Note != "" {
		t.Errorf("unpaused: %+v, %v; kept %+v, %v", status, err, kept, fault)
	}
}

func testSuiteDelete(t *testing.T, s *Session, home runs.Home) {
	create(t, s, suiteOf(t, "gone", far, "ok-a"))
	out := waitTurn(t, trigger(t, s, "gone", ""))
	if err := s.DeleteSuite(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Suite(t.Context(), "gone"); !errors.Is(err, ErrNoSuite) {
		t.Errorf("it is still there: %v", err)
	}
	if turns, err := home.ReadSuiteTurns("gone"); err != nil || len(turns) != 1 || turns[0].ID != out.Turn {
		t.Errorf("its history is %+v, %v", turns, err)
	}
	if err := s.DeleteSuite(t.Context(), "gone"); !errors.Is(err, ErrNoSuite) {
		t.Errorf("once more: %v", err)
	}
	if change := create(t, s, suiteOf(t, "gone", far, "ok-a")); !change.Created {
		t.Errorf("created again: %+v", change)
	}
}

func testSuiteUnknown(t *testing.T, s *Session, _ runs.Home) {
	_, trigger := s.TriggerSuite(t.Context(), "nobody", "")
	_, backfill := s.BackfillSuite(t.Context(), "nobody", time.Now(), time.Now(), "")
	_, cancel := s.CancelSuite(t.Context(), "nobody")
	for what, err := range map[string]error{
		"trigger": trigger, "backfill": backfill, "cancel": cancel,
		"pause": s.PauseSuite(t.Context(), "nobody", ""), "delete": s.DeleteSuite(t.Context(), "nobody"),
	} {
		if !errors.Is(err, ErrNoSuite) || !strings.Contains(err.Error(), "groundplan suite list") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func testSuiteNames(t *testing.T, s *Session, _ runs.Home) {
	for name, want := range map[string]string{"..": "can't name a suite", strings.Repeat("a", 37): "leave room for 36"} {
		suite := suiteOf(t, "x", far, "ok-a")
		suite.Suite.Name = name
		if _, err := s.CreateSuite(t.Context(), suite); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testSuiteTerminated(t *testing.T, s *Session, _ runs.Home) {
	create(t, s, suiteOf(t, "force", far, "stuck-a"))
	turn := trigger(t, s, "force", "")
	run := underWay(t, turn).Runs[0].Run
	for range 500 { // it is known a moment before it begins
		if _, err := s.Run(run).State(t.Context()); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := s.client.TerminateWorkflow(t.Context(), turn.id, "", "by a test"); err != nil {
		t.Fatal(err)
	}
	if out := waitTurn(t, turn); out.Verdict != stage.Cancelled {
		t.Errorf("the turn came to %+v", out)
	}
	if out := wait(t, s.Run(run)); out.Verdict != stage.Cancelled {
		t.Errorf("its run came to %+v", out)
	}
	// It could not say so itself: whoever asks next finds out.
	for range 500 {
		status, err := s.Suite(t.Context(), "force")
		if err != nil {
			t.Fatal(err)
		}
		if last := status.Last; last.Status == stage.StatusEnded {
			if last.Verdict != stage.Cancelled || !strings.Contains(last.Reason, "by force") || last.Ended.IsZero() || last.Runs[0].Verdict != stage.Cancelled {
				t.Errorf("its record is %+v", last)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("its record says that it is under way")
}

// TestSuitesSurvive: a new database, as an upgrade brings it, has the suites that were created here.
func TestSuitesSurvive(t *testing.T) {
	home := runs.Home(t.TempDir())
	config := suiteConfig(home)
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, suiteOf(t, "kept", far, "ok-a"))
	create(t, s, suiteOf(t, "deleted", far, "ok-a"))
	if err := errors.Join(s.PauseSuite(t.Context(), "kept", "why"), s.DeleteSuite(t.Context(), "deleted")); err != nil {
		t.Fatal(err)
	}
	owner := s.owned
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	<-owner.gone
	files, err := filepath.Glob(filepath.Join(string(home), "temporal-*.db*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	s = openSession(t, config)
	all, err := s.Suites(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "kept" || !all[0].Paused || all[0].Note != "why" {
		t.Errorf("the suites are %+v, %v", all, err)
	}
	if out := waitTurn(t, trigger(t, s, "kept", "")); out.Verdict != stage.Passed {
		t.Errorf("a turn came to %+v", out)
	}
}

// TestSuitesMove: a machine that gets another name takes its suites along, and another home's are left alone.
func TestSuitesMove(t *testing.T) {
	home := runs.Home(t.TempDir())
	s := openSession(t, suiteConfig(home))
	create(t, s, suiteOf(t, "mine", far, "ok-a"))
	for name, host := range map[string]string{"mine": "old-name-" + short(string(home)), "theirs": "elsewhere-01234567"} {
		suite := suiteOf(t, name, far, "ok-a")
		input := s.suiteInput(suite)
		input.Host, input.Queue = host, workflows.QueueFor(host)
		if name == "theirs" {
			if err := errors.Join(s.makeSchedule(t.Context(), suite, input), home.WriteSuite(suite)); err != nil {
				t.Fatal(err)
			}
		} else if err := s.changeSchedule(t.Context(), name, func(schedule *client.Schedule) { s.shape(schedule, suite, input) }); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 { // the change is taken up a moment later
		if k, err := s.readSchedule(t.Context(), "mine"); err == nil && !k.status.Here {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := s.restoreSuites(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, here := range map[string]bool{"mine": true, "theirs": false} {
		status := SuiteStatus{Here: !here}
		for range 100 {
			var err error
			if status, err = s.Suite(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if status.Here == here {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if status.Here != here {
			t.Errorf("%s runs on %s", name, status.Host)
		}
	}
	if out := waitTurn(t, trigger(t, s, "mine", "")); out.Verdict != stage.Passed {
		t.Errorf("a turn came to %+v", out)
	}
}
