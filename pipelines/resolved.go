package pipelines

// Resolved is one runnable pipeline: what a file becomes once parameters, matrix cell, includes, `extends` and every
// expression that needs no result of a stage have been worked out. It is a plain value: it survives a round trip
// through JSON unchanged, and the same inputs always give the same bytes.
type Resolved struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// File is the pipeline's path relative to the repository root.
	File string `json:"file,omitempty"`
	// Digest is the hex SHA-256 of this value's JSON with Digest itself empty.
	Digest string `json:"digest"`
	// Seed is where every random choice of the run comes from; derived from the name and parameters when the file and
	// the command line name none.
	Seed uint64 `json:"seed"`
	// Parameters holds the value of every parameter: bool, int64, float64 or string (durations, sizes, bandwidths and
	// shares in their canonical text form).
	Parameters Values `json:"parameters,omitempty"`
	// Cell is this run's matrix cell, nil without a matrix.
	Cell Values `json:"cell,omitempty"`
	// Env holds the variables listed under the top-level `env:`, as they stood when the pipeline was resolved.
	Env map[string]string `json:"env,omitempty"`
	// Groups stand in the order of the file.
	Groups []Group `json:"groups"`
	// Stages stand in the order of the file; Needs makes the graph.
	Stages []Stage `json:"stages"`
}

// Group returns the group with that name.
func (r *Resolved) Group(name string) (Group, bool) {
	for _, g := range r.Groups {
		if g.Name == name {
			return g, true
		}
	}
	return Group{}, false
}

// Instances is the number of instances of all groups together.
func (r *Resolved) Instances() int {
	total := 0
	for _, g := range r.Groups {
		total += g.Instances
	}
	return total
}

// Group is a set of like instances.
type Group struct {
	Name      string `json:"name"`
	Artifact  string `json:"artifact"`
	Instances int    `json:"instances"`
	Region    string `json:"region,omitempty"`
	// CPU is what one instance asks for, in thousandths of a core; 0 asks for nothing.
	CPU int64 `json:"cpu,omitempty"`
	// Memory is what one instance asks for, in bytes; 0 asks for nothing.
	Memory Size `json:"memory,omitempty"`
	// Role is a free string, handed to the instance as TEST_INSTANCE_ROLE.
	Role string `json:"role,omitempty"`
	// Parameters are handed to every instance of the group, as text; a run's params are laid over them.
	Parameters map[string]string `json:"parameters,omitempty"`
	// Outcome says who decides about success: OutcomeReport or OutcomeExit.
	Outcome string `json:"outcome"`
	// Args follow the artifact's own command line.
	Args []string `json:"args,omitempty"`
	// Env is laid over the environment of instance-contract.md.
	Env map[string]string `json:"env,omitempty"`
	// Ports are label → port: each is handed to the instance as <LABEL>_PORT.
	Ports map[string]int `json:"ports,omitempty"`
	// Profiles is handed over as TEST_CAPTURE_PROFILES.
	Profiles map[string]string `json:"profiles,omitempty"`
	// Testground says whether TEST_INSTANCE_PARAMS must be able to carry the parameters (default true): with it, a
	// value holding `=` or `|` is refused.
	Testground bool `json:"testground"`
}

// Who decides whether an instance succeeded.
const (
	OutcomeReport = "report" // an instance without an outcome event has failed
	OutcomeExit   = "exit"   // the exit status decides; a failure or crash event still fails
)

// Kind names what a stage does.
type Kind string

// The five kinds of stages.
const (
	KindBuild    Kind = "build"
	KindSchedule Kind = "schedule"
	KindNetwork  Kind = "network"
	KindRun      Kind = "run"
	KindCollect  Kind = "collect"
)

// What happens when a stage did not pass and its retries are used up.
const (
	OnFailureAbort    = "abort"    // the default: later stages are skipped, the placement is released
	OnFailureHold     = "hold"     // the placement stays until resume, abort or holdFor
	OnFailureContinue = "continue" // later stages run; the run's verdict still tells
)

// Stage is one step; exactly one of Build, Schedule, Network, Run and Collect is set, and Kind says which.
type Stage struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
	// Needs are the stages that end before this one begins; empty for a stage that begins at once.
	Needs []string `json:"needs,omitempty"`
	// When is a CEL expression of type bool over Variables, evaluated when the stage's turn comes; empty: always.
	// Without one a stage runs only when all it needs passed.
	When string `json:"when,omitempty"`
	// Timeout bounds one attempt; never 0 once resolved.
	Timeout   Duration `json:"timeout,omitempty"`
	Retry     Retry    `json:"retry"`
	OnFailure string   `json:"onFailure"`
	// HoldFor is set with OnFailureHold only.
	HoldFor Duration `json:"holdFor,omitempty"`
	// Position is `file:line` of the stage, for messages.
	Position string `json:"position,omitempty"`

	Build    map[string]Source `json:"build,omitempty"`
	Schedule *Schedule         `json:"schedule,omitempty"`
	Network  *Network          `json:"network,omitempty"`
	Run      *Run              `json:"run,omitempty"`
	Collect  *Collect          `json:"collect,omitempty"`
}

// Retry says how often and how a stage is tried again. The zero value tries once.
type Retry struct {
	// Attempts counts the first one in; 0 and 1 both mean no retry.
	Attempts int      `json:"attempts,omitempty"`
	Initial  Duration `json:"initial,omitempty"`
	Factor   float64  `json:"factor,omitempty"`
	Max      Duration `json:"max,omitempty"`
	// On lists the verdicts that are retried: `invalid` (the default) and `failed`.
	On []string `json:"on,omitempty"`
}

// Source is what an artifact is built from; exactly one field is set.
type Source struct {
	Go         *GoSource         `json:"go,omitempty"`
	Image      *ImageSource      `json:"image,omitempty"`
	Dockerfile *DockerfileSource `json:"dockerfile,omitempty"`
	Executable *ExecutableSource `json:"executable,omitempty"`
	NPM        *NPMSource        `json:"npm,omitempty"`
}

// GoSource is a Go main package. Paths are relative to the repository root once resolved.
type GoSource struct {
	Module  string            `json:"module"`            // folder of the go.mod
	Modfile string            `json:"modfile,omitempty"` // a file of the module in place of its go.mod, ending in .mod; .sum beside it
	Package string            `json:"package"`           // import path or ./folder inside the module
	Tags    []string          `json:"tags,omitempty"`
	Replace map[string]string `json:"replace,omitempty"` // module path → version, module@version or ./folder
	Require map[string]string `json:"require,omitempty"` // module path → version
	Cgo     bool              `json:"cgo,omitempty"`
	Flags   []string          `json:"flags,omitempty"` // added to `go build`; -o, -exec, -toolexec, -overlay and -modfile are refused
}

// ImageSource is an image that exists.
type ImageSource struct {
	Ref string `json:"ref"`
}

// DockerfileSource is an image to be built.
type DockerfileSource struct {
	Context string            `json:"context"`
	File    string            `json:"file,omitempty"`
	Target  string            `json:"target,omitempty"`
	Args    map[string]string `json:"args,omitempty"`
}

// ExecutableSource is a file that exists, inside the repository root.
type ExecutableSource struct {
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"`
}

// NPMSource is a Node.js package.
type NPMSource struct {
	Dir    string `json:"dir"`
	Script string `json:"script,omitempty"`
}

// Schedule places groups.
type Schedule struct {
	Groups []string `json:"groups,omitempty"` // resolved: never empty
}

// Network is the whole state of the data network.
type Network struct {
	Default Shape   `json:"default"`
	Links   []Link  `json:"links,omitempty"`
	Inbound []Block `json:"inbound,omitempty"`
	NAT     []NAT   `json:"nat,omitempty"`
	// Access is AccessNone or AccessInternet; in an event also empty, which changes nothing.
	Access  string `json:"access"`
	Regions string `json:"regions,omitempty"` // CSV file, relative to the repository root
	// Matrix is what Regions holds: one-way latency by source and destination region, of the regions that groups are in.
	// Links are laid over it, and it over Default.
	Matrix map[string]map[string]Duration `json:"matrix,omitempty"`
	Verify Verify                         `json:"verify"`
}

// Whether the data network leads out.
const (
	AccessNone     = "none"
	AccessInternet = "internet"
)

// Shape is how one direction of a link behaves; a nil field is not set (and inherits what it is laid over).
type Shape struct {
	Latency      *Duration  `json:"latency,omitempty"`
	Jitter       *Duration  `json:"jitter,omitempty"`
	Distribution string     `json:"distribution,omitempty"` // uniform | normal | pareto
	Loss         *Share     `json:"loss,omitempty"`
	LossCorr     *Share     `json:"lossCorrelation,omitempty"`
	Duplicate    *Share     `json:"duplicate,omitempty"`
	Reorder      *Share     `json:"reorder,omitempty"`
	Corrupt      *Share     `json:"corrupt,omitempty"`
	Bandwidth    *Bandwidth `json:"bandwidth,omitempty"`
	Queue        *int64     `json:"queue,omitempty"`  // packets
	Policy       string     `json:"policy,omitempty"` // accept | reject | drop
}

// Link is one direction between two groups. `between` has become two of them, and a region one per group in it. Later
// links are laid over earlier ones.
type Link struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Shape Shape  `json:"shape"`
	// Row is the number of the row that it stands in, from 1: what one instance sends by links of the same row shares the
	// row's bandwidth. 0: a row of its own.
	Row int `json:"row,omitempty"`
}

// Block refuses new connections into groups.
type Block struct {
	Groups []string `json:"groups"`
	Policy string   `json:"policy"`
}

// NAT puts groups behind a router: one for all their instances, or one for each.
type NAT struct {
	Groups      []string `json:"groups"`
	Type        string   `json:"type"` // full-cone | restricted | port-restricted | symmetric
	PerInstance bool     `json:"perInstance,omitempty"`
	// Timeout is how long a mapping of UDP stays without outgoing packets.
	Timeout Duration `json:"timeout,omitempty"`
}

// Verify says how a network stage is proved.
type Verify struct {
	Off       bool  `json:"off,omitempty"`
	Pairs     int   `json:"pairs,omitempty"`
	Tolerance Share `json:"tolerance,omitempty"`
}

// Run opens the gate.
type Run struct {
	Groups   []string          `json:"groups"` // resolved: never empty
	Case     string            `json:"case"`
	Params   map[string]string `json:"params,omitempty"`
	Success  Share             `json:"success"` // share of the instances that must succeed
	FailFast bool              `json:"failFast,omitempty"`
	Events   []Event           `json:"events,omitempty"`
}

// Event is something done to a running stage.
type Event struct {
	Name    string   `json:"name,omitempty"`
	At      Anchor   `json:"at"`
	For     Duration `json:"for,omitempty"`
	Network *Network `json:"network,omitempty"`
	Kill    *Choice  `json:"kill,omitempty"`
	Pause   *Choice  `json:"pause,omitempty"`
	Restart Duration `json:"restart,omitempty"`
}

// Anchor is a moment of a run: the start, a state that the plan signals, or another event, plus an offset.
type Anchor struct {
	State  string   `json:"state,omitempty"`
	Event  string   `json:"event,omitempty"`
	Healed bool     `json:"healed,omitempty"` // the event's end, not its beginning
	Offset Duration `json:"offset,omitempty"`
}

// Choice draws instances of a group: a share, a count, or named indices.
type Choice struct {
	Group   string   `json:"group"`
	Share   *Share   `json:"share,omitempty"`
	Count   int      `json:"count,omitempty"`
	Indices []int    `json:"indices,omitempty"`
	For     Duration `json:"for,omitempty"` // of a pause
}

// Collect gathers what a run left.
type Collect struct {
	Outputs       bool           `json:"outputs"`
	Elasticsearch *Elasticsearch `json:"elasticsearch,omitempty"`
	// Assert holds CEL expressions of type bool over Variables.
	Assert  []Assertion `json:"assert,omitempty"`
	Compare *Compare    `json:"compare,omitempty"`
	// Export lists forms that the metrics are written in for other programs, each once.
	Export []string `json:"export,omitempty"`
}

// Forms of exported metrics.
const (
	ExportParquet    = "parquet"
	ExportPrometheus = "prometheus"
	ExportOTLP       = "otlp"
)

// Assertion is one expression that must hold.
type Assertion struct {
	Expr     string `json:"expr"`
	Position string `json:"position,omitempty"` // file:line:column
}

// Elasticsearch says where logs go.
type Elasticsearch struct {
	Index string `json:"index"`
}

// Compare holds a run against earlier ones.
type Compare struct {
	With      string           `json:"with"`
	Runs      int              `json:"runs,omitempty"`
	Alpha     float64          `json:"alpha,omitempty"`
	Tolerance map[string]Share `json:"tolerance,omitempty"`
}
