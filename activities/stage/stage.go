// Package stage holds the names and types that the workflows and the activities share: what an activity is asked, and
// what it answers. It holds no code that does work.
package stage

import (
	"strconv"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

// Verdict says how a stage or a run ended.
type Verdict string

// The three verdicts, and what may stand in place of one.
const (
	Passed    Verdict = "passed"
	Failed    Verdict = "failed"    // the subject: an outcome, an assertion, a build that doesn't compile
	Invalid   Verdict = "invalid"   // the ground: a placement lost, a link not as asked, a service away
	Skipped   Verdict = "skipped"   // of a stage: its turn never came, or `when` said no
	Cancelled Verdict = "cancelled" // of a run or stage: somebody ended it
)

// Names under which the activities are registered. A stage's activity has the name of its kind.
const (
	ActivityBuild    = "build"
	ActivitySchedule = "schedule"
	ActivityNetwork  = "network"
	ActivityRun      = "run"
	ActivityCollect  = "collect"
	// ActivityHalt ends what a cancelled or timed-out stage still runs, and keeps the placement. Takes Input.
	ActivityHalt = "halt"
	// ActivityRelease gives the placement back. Takes Release.
	ActivityRelease = "release"
	// ActivityRecord writes the run's record (runs/<id>/run.json). Takes Record.
	ActivityRecord = "record"
	// ActivityResolve resolves one matrix cell. Takes Resolve, returns pipelines.Resolved.
	ActivityResolve = "resolve"
	// ActivityTake brings what an earlier run came to into the folder of one that goes on from it. Takes Take.
	ActivityTake = "take"
	// ActivityEvaluate evaluates a `when`. Takes Evaluate, returns bool. A local activity.
	ActivityEvaluate = "evaluate"
)

// Key names one attempt of a stage, in a run: to the sidecar that opens its gate, and in the per-instance results.
func Key(stage string, attempt int) string { return stage + "-" + strconv.Itoa(attempt) }

// Run names a run and where it happens.
type Run struct {
	// ID is the run's id, [a-zA-Z0-9._-]{1,63}; also the workflow's id and the name of its folder.
	ID string `json:"id"`
	// Ground is "local" or "kubernetes".
	Ground string `json:"ground"`
	// Root is the absolute path of the repository root on the machine that started the run.
	Root string `json:"root"`
	// Commit is the git commit of Root, with "-dirty" behind it when the tree had changes; empty outside git.
	Commit string `json:"commit,omitempty"`
	// Suite is the suite that started the run, if one did, and Turn the id of its turn.
	Suite string `json:"suite,omitempty"`
	Turn  string `json:"turn,omitempty"`
	// From is the run whose results this one took over, up to the stage at which it began.
	From string `json:"from,omitempty"`
	// Context and Namespace are, for Kubernetes, the context of the kubeconfig and the namespace of the instances that
	// whoever started the run has named; empty: those of the worker.
	Context   string `json:"context,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// Input is what each of the five stage activities is asked.
type Input struct {
	Run Run `json:"run"`
	// Pipeline is the name of the pipeline, and Seed the run's seed.
	Pipeline string `json:"pipeline"`
	Seed     uint64 `json:"seed"`
	// Stage is the stage to carry out; Attempt counts its tries by the workflow from 1 over the life of the run,
	// resumes counted in.
	Stage   pipelines.Stage `json:"stage"`
	Attempt int             `json:"attempt"`
	// Groups are all groups of the pipeline, in order.
	Groups []pipelines.Group `json:"groups"`
	// Together is set for schedule: sets of groups that have to be on one machine (see pipelines.Resolved.Together).
	Together [][]string `json:"together,omitempty"`
	// Artifacts are those that earlier build stages made, by name.
	Artifacts map[string]Artifact `json:"artifacts,omitempty"`
	// Stages are the results so far, in the order in which they ended (for collect: its Variables): name, kind, verdict,
	// attempt and times only.
	Stages []Result `json:"stages,omitempty"`
	// Parameters, Cell and Env are those of the resolved pipeline (for assert).
	Parameters map[string]any    `json:"parameters,omitempty"`
	Cell       map[string]any    `json:"cell,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	// Deadline is when this attempt's timeout ends.
	Deadline time.Time `json:"deadline"`
}

// Artifact is something built.
type Artifact struct {
	Name string `json:"name"`
	// Digest is the hex SHA-256 of all that went in.
	Digest string `json:"digest"`
	// Architecture is that of the machines it is for, as Go names it; empty: the building machine's.
	Architecture string `json:"architecture,omitempty"`
	// Path is the executable on the building machine; empty for an image.
	Path string `json:"path,omitempty"`
	// Archive is a file on the building machine that holds an image, until a ground has pushed it; empty for all else.
	Archive string `json:"archive,omitempty"`
	// Args stand before the group's own arguments.
	Args []string `json:"args,omitempty"`
	// Image is the reference of an image; empty for an executable that no ground has made one of.
	Image string `json:"image,omitempty"`
	// Command is what starts the program inside the image, with the arguments that belong to it.
	Command []string `json:"command,omitempty"`
	// Cached says that it was there already.
	Cached bool `json:"cached,omitempty"`
}

// Result is what a stage came to. It stays small whatever the number of instances: details are in the run's folder.
type Result struct {
	Stage   string         `json:"stage"`
	Kind    pipelines.Kind `json:"kind"`
	Verdict Verdict        `json:"verdict"`
	// Reason is one sentence for a person, with the names that matter; empty for passed.
	Reason string `json:"reason,omitempty"`
	// Notes are sentences that a person should read whatever the verdict: lines that could not be read, a comparison
	// that found too few runs.
	Notes   []string  `json:"notes,omitempty"`
	Attempt int       `json:"attempt"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	// Artifacts is set by build.
	Artifacts map[string]Artifact `json:"artifacts,omitempty"`
	// Placed counts, for schedule, the instances that this attempt placed, and Kept those it found.
	Placed int `json:"placed,omitempty"`
	Kept   int `json:"kept,omitempty"`
	// Outcomes is set by run: group → how its instances ended.
	Outcomes map[string]pipelines.Outcomes `json:"outcomes,omitempty"`
	// Failing names at most ten instances that did not succeed, as group/index.
	Failing []string `json:"failing,omitempty"`
	// Assertions is set by collect.
	Assertions []Assertion `json:"assertions,omitempty"`
	// Regressed is set by collect: at most ten figures that were worse than in earlier runs.
	Regressed []string `json:"regressed,omitempty"`
	// From is the run that this result was taken over from; empty: it is the run's own.
	From string `json:"from,omitempty"`
}

// Assertion is what became of one `assert`.
type Assertion struct {
	Expr     string `json:"expr"`
	Position string `json:"position,omitempty"`
	Held     bool   `json:"held"`
	// Explanation shows the values that the expression was made of: `metrics.rtt.p95 = 2.41`.
	Explanation string `json:"explanation,omitempty"`
}

// Progress is the heartbeat of a stage activity, and what a person sees of it.
type Progress struct {
	Stage   string `json:"stage"`
	Attempt int    `json:"attempt"`
	// Note says what is being done when counts don't: "compiling peer".
	Note string `json:"note,omitempty"`
	// Total is the number of instances (or artifacts, or files) that the stage is about.
	Total     int `json:"total,omitempty"`
	Placed    int `json:"placed,omitempty"`
	Waiting   int `json:"waiting,omitempty"`
	Running   int `json:"running,omitempty"`
	Succeeded int `json:"succeeded,omitempty"`
	Failed    int `json:"failed,omitempty"` // failed, crashed and silent together
	Killed    int `json:"killed,omitempty"` // by events, for good
	// FirstFailure is `group/index: why`, as soon as there is one.
	FirstFailure string `json:"firstFailure,omitempty"`
}

// Release is what ActivityRelease is asked.
type Release struct {
	Run Run `json:"run"`
}

// Take is what ActivityTake is asked: what run Run.From came to in these stages.
type Take struct {
	Run    Run      `json:"run"`
	Stages []Result `json:"stages"`
}

// Record is what ActivityRecord is asked: the whole state of a run at its start, while it holds, and at its end.
type Record struct {
	Run      Run                `json:"run"`
	Pipeline pipelines.Resolved `json:"pipeline"`
	// Status is StatusRunning, StatusHolding or StatusEnded.
	Status string `json:"status"`
	// Verdict and Reason are set once the run has ended (Reason also while it holds).
	Verdict Verdict   `json:"verdict,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Results has one row per stage that ended, the newest attempt of each; earlier attempts are in Tries.
	Results []Result `json:"results"`
	Tries   []Result `json:"tries,omitempty"`
	// Cells is set for a matrix: one row per child run.
	Cells []Cell `json:"cells,omitempty"`
}

// Cell is one child run of a matrix.
type Cell struct {
	Run     string         `json:"run"`
	Values  map[string]any `json:"values"`
	Verdict Verdict        `json:"verdict"`
	Reason  string         `json:"reason,omitempty"`
}

// What a run is at.
const (
	StatusRunning = "running"
	StatusHolding = "holding"
	StatusEnded   = "ended"
)

// Resolve is what ActivityResolve is asked.
type Resolve struct {
	Bundle pipelines.Bundle `json:"bundle"`
	Cell   map[string]any   `json:"cell"`
}

// Evaluate is what ActivityEvaluate is asked. What Expr sees of outcomes and metrics is in the run's folder.
type Evaluate struct {
	Run        Run               `json:"run"`
	Expr       string            `json:"expr"`
	Parameters map[string]any    `json:"parameters,omitempty"`
	Cell       map[string]any    `json:"cell,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	Groups     []pipelines.Group `json:"groups,omitempty"`
	// Stages are the results so far.
	Stages []Result `json:"stages,omitempty"`
}
