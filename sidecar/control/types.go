// Package control is how the outside speaks with a run's sidecar: HTTP with JSON bodies over a Unix socket that only
// its owner may open. Every call converges: asked twice, it does its work once.
//
//	POST /v1/place            Placement  → Status        places what is missing; returns once all that can be placed is
//	POST /v1/network          Network    → NetworkReply  replaces the state of the data network
//	POST /v1/stages/{key}     RunStage   → RunStatus     opens the gate; a known key only returns its status
//	GET  /v1/stages/{key}     ?since=V&wait=2s → RunStatus  returns at once when done, else when something changed or after wait
//	POST /v1/stages/{key}/halt           → RunStatus     ends every process of the stage; returns when they are gone
//	POST /v1/halt                        → Status        halts every stage that runs; returns when their processes are gone
//	GET  /v1/status                      → Status
//	POST /v1/release                     → Status        ends every process and then the sidecar itself
//
// What is refused is answered with a status of 400 and above and {"error": "one sentence"}: 400 for what can never be
// done, 404 for a stage that was never opened, 409 for what is in the way of something that goes on.
package control

import (
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

// Placement says which instances are to be there.
type Placement struct {
	Run      string `json:"run"`
	Pipeline string `json:"pipeline"`
	Seed     uint64 `json:"seed"`
	// Groups are those to be placed now. All has every group of the pipeline in order, so that addresses and counts
	// don't depend on what is placed when.
	Groups []string `json:"groups"`
	All    []Group  `json:"all"`
	// Environment that all instances share beyond the contract's: TEST_REPO and the like.
	Env map[string]string `json:"env,omitempty"`
	// Node says what of the run this sidecar holds, where its instances are spread over the nodes of a cluster; nil: all.
	Node *Node `json:"node,omitempty"`
}

// Node is one node's part of a run that is spread over several. Every sidecar of the run knows all groups, so that slots,
// addresses and counts are the same everywhere; it places, starts and counts only its own instances.
type Node struct {
	Name string `json:"name"`
	// Lead says that this is the one sidecar of the run that tells what concerns the whole run, like its events.
	Lead bool `json:"lead,omitempty"`
	// Pods are the instances on this node.
	Pods []Pod `json:"pods"`
	// Nodes are all that hold instances of the run, this one among them, in the same order for each.
	Nodes []Peer `json:"nodes"`
}

// Pod is where an instance lives.
type Pod struct {
	Slot int    `json:"slot"`
	UID  string `json:"uid"`
	Name string `json:"name"`
}

// Peer is a node as the others see it.
type Peer struct {
	Name string `json:"name"`
	// Address is where its other end of the data network's tunnels is: the node's own.
	Address netip.Addr `json:"address"`
	// Slots are those of the instances that it holds, as ranges with both ends in.
	Slots [][2]int `json:"slots"`
}

// Group is a group with what it runs.
type Group struct {
	pipelines.Group
	// Program is the absolute path of the executable; Arguments stand before the group's Args.
	Program   string   `json:"program"`
	Arguments []string `json:"arguments,omitempty"`
}

// Network is the state of the data network that is asked for.
type Network struct {
	State pipelines.Network `json:"state"`
	// Key names the stage and attempt that ask.
	Key string `json:"key"`
	// Stage is the network stage, and Seed the run's, by which the pairs to be probed are drawn.
	Stage string `json:"stage,omitempty"`
	Seed  uint64 `json:"seed,omitempty"`
}

// NetworkReply says what came of it.
type NetworkReply struct {
	// Refused is why the state can't be applied; empty when it was.
	Refused string `json:"refused,omitempty"`
	// Proof is what was measured then; nil where Verify is off. All its pairs are in the run's folder
	// (runs.Folder.Proof), the reply has at most MostPairs of them: those outside the tolerance first.
	Proof *Proof `json:"proof,omitempty"`
	// Summary is one sentence about how close all pairs came to what is asked; empty without a proof.
	Summary string `json:"summary,omitempty"`
	// Pairs counts the pairs that were probed, and Faults those outside the tolerance.
	Pairs  int `json:"pairs,omitempty"`
	Faults int `json:"faults,omitempty"`
}

// MostPairs is how many pairs a reply names.
const MostPairs = 10

// Proof is what sampled pairs of a data network were found to do, beside what was asked of them.
type Proof struct {
	// Shaper is who shapes: "netem" or "user space".
	Shaper string `json:"shaper"`
	// Seed is what the pairs were drawn with.
	Seed      uint64          `json:"seed"`
	Tolerance pipelines.Share `json:"tolerance"`
	Started   time.Time       `json:"started,omitzero"`
	Ended     time.Time       `json:"ended,omitzero"`
	Pairs     []Pair          `json:"pairs"`
}

// Pair is one direction between two instances.
type Pair struct {
	From     string  `json:"from"` // group/index
	To       string  `json:"to"`
	Asked    Figures `json:"asked"`
	Achieved Figures `json:"achieved"`
	// Packets is how many the achieved latency, jitter and loss were found with.
	Packets int  `json:"packets,omitempty"`
	OK      bool `json:"ok"`
	// Fault says what is outside the tolerance, with both figures and without the pair's names: "latency 62ms instead of
	// 50ms"; empty when OK.
	Fault string `json:"fault,omitempty"`
	// Note says what was not found out, and why; or that IPv6 was probed.
	Note string `json:"note,omitempty"`
}

// Figures are what is asked of a direction, or what it was found to do; what is zero was not asked, or not found.
type Figures struct {
	Latency   pipelines.Duration `json:"latency,omitzero"` // one way
	Jitter    pipelines.Duration `json:"jitter,omitzero"`
	Loss      pipelines.Share    `json:"loss,omitzero"`
	Duplicate pipelines.Share    `json:"duplicate,omitzero"`
	Reorder   pipelines.Share    `json:"reorder,omitzero"`
	Corrupt   pipelines.Share    `json:"corrupt,omitzero"`
	// Bandwidth is in bits per second, counted over IP packets.
	Bandwidth pipelines.Bandwidth `json:"bandwidth,omitzero"`
	// Policy is accept, reject or drop.
	Policy string `json:"policy,omitempty"`
}

// RunStage is one opening of the gate. Its key is unique per run, stage and attempt.
type RunStage struct {
	Stage    string            `json:"stage"`
	Groups   []string          `json:"groups"`
	Case     string            `json:"case"`
	Params   map[string]string `json:"params,omitempty"`
	FailFast bool              `json:"failFast,omitempty"`
	// MaxFailures is how many instances may fail before FailFast ends the stage.
	MaxFailures int `json:"maxFailures,omitempty"`
	// Deadline is when the stage's timeout ends: the sidecar ends it by itself then, whoever is still there to ask.
	Deadline time.Time `json:"deadline"`
	// Events happen while the stage runs. Seed is the run's: with the event's and the stage's name it draws the
	// instances that they choose.
	Events []pipelines.Event `json:"events,omitempty"`
	Seed   uint64            `json:"seed,omitempty"`
	// Only names the instances to start, as group/index; empty: all of Groups. The counts that instances are told
	// (TEST_INSTANCE_COUNT) are those of the instances that take part.
	Only []string `json:"only,omitempty"`
}

// Counts says where the instances of a group stand.
type Counts struct {
	Total     int `json:"total"`
	Placed    int `json:"placed"` // has its namespaces, interfaces and folders
	Running   int `json:"running"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Crashed   int `json:"crashed"`
	Silent    int `json:"silent"`
	// Killed counts those that an event killed and that were not started again. They are in none of the counts above
	// but Total and Placed.
	Killed int `json:"killed,omitempty"`
}

// Status is what the sidecar holds.
type Status struct {
	Run     string    `json:"run"`
	PID     int       `json:"pid"` // in the namespace of whoever asks it: set by Dial's caller, 0 on the wire
	Started time.Time `json:"started"`
	// Groups counts per group. New and Kept count, in the answer to a Placement, what it added and what it found.
	Groups map[string]Counts `json:"groups"`
	New    int               `json:"new"`
	Kept   int               `json:"kept"`
	// Faults are the instances that could not be placed, as group/index → why; at most 20, FaultCount counts all.
	Faults     map[string]string `json:"faults,omitempty"`
	FaultCount int               `json:"faultCount,omitempty"`
	// MemoryPerInstance is what the sidecar measured for its own share of an instance, in bytes.
	MemoryPerInstance int64 `json:"memoryPerInstance,omitempty"`
	// Probed and ToProbe count the pairs of the data network while it is being proved.
	Probed  int `json:"probed,omitempty"`
	ToProbe int `json:"toProbe,omitempty"`
}

// RunStatus is where a run stage stands.
type RunStatus struct {
	Key  string `json:"key"`
	Done bool   `json:"done"`
	// Version grows with every change; a GET with ?since=V waits for a later one.
	Version int64             `json:"version"`
	Groups  map[string]Counts `json:"groups"`
	Started time.Time         `json:"started"`
	Ended   time.Time         `json:"ended,omitzero"`
	// FirstFailure is the first instance that did not succeed.
	FirstFailure *Instance `json:"firstFailure,omitempty"`
	// Failing names at most ten instances that did not succeed, as group/index.
	Failing []string `json:"failing,omitempty"`
	// TimedOut, Halted and FailedFast say why the stage ended before every instance had an outcome by itself.
	TimedOut   bool `json:"timedOut,omitempty"`
	Halted     bool `json:"halted,omitempty"`
	FailedFast bool `json:"failedFast,omitempty"`
	// Unfinished counts the instances that were still running when the stage was ended.
	Unfinished int `json:"unfinished,omitempty"`
	// Event is one sentence about the event of the stage that began or ended last; empty before the first.
	Event string `json:"event,omitempty"`
	// Missed are sentences about the events that never happened, because the stage was over before.
	Missed []string `json:"missed,omitempty"`
	// Lost counts the instances of whose end nobody knows: their pods or their node are gone.
	Lost int `json:"lost,omitempty"`
	// Fault is what the sidecar itself could not do (the sync service failed, the disk is full); empty when all went
	// well. It is a fault of the ground, whatever the outcomes say.
	Fault string `json:"fault,omitempty"`
}

// How an instance ended.
const (
	OutcomeSucceeded = "succeeded"
	OutcomeFailed    = "failed"
	OutcomeCrashed   = "crashed"
	OutcomeSilent    = "silent" // ended without saying how, where it has to say
	OutcomeKilled    = "killed" // by an event, and not started again: it says nothing about the subject
)

// Instance is what became of one instance in one run stage: one JSON document per line in the run's folder,
// stages/<stage>.jsonl.
type Instance struct {
	Group   string    `json:"group"`
	Index   int       `json:"index"`
	Stage   string    `json:"stage"`
	Attempt string    `json:"attempt"` // the stage's key
	Host    string    `json:"host"`    // its HOSTNAME
	Control string    `json:"control"` // its address on eth0
	Data    string    `json:"data"`    // its address on eth1
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Outcome string    `json:"outcome"`
	// Reason is one sentence; empty for an instance that succeeded.
	Reason string `json:"reason,omitempty"`
	// Exit is the exit status, -1 when a signal ended it; Signal names that one.
	Exit   int    `json:"exit"`
	Signal string `json:"signal,omitempty"`
	// Starts is how often it was started, where events started it again.
	Starts int `json:"starts,omitempty"`
	// PeakMemory is the largest resident set seen, in bytes; 0, and left out, where the program ended before it could be seen:
	// the kernel gives only those figures away after an end that are above the sidecar's own. CPU is user and system time in
	// seconds.
	PeakMemory int64   `json:"peakMemory,omitempty"`
	CPU        float64 `json:"cpu"`
	// LastLines are the last lines of stderr, or of stdout where stderr is empty; at most ten. Failures only.
	LastLines []string `json:"lastLines,omitempty"`
}
