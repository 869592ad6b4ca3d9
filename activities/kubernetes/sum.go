package kubernetes

import (
	"fmt"
	"maps"
	"slices"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/sidecar/control"
)

// mostFailing is how many instances a status names.
const mostFailing = 10

// sumPlaced is what all sidecars of a run hold together.
func sumPlaced(parts []control.Status) control.Status {
	sum := control.Status{Groups: map[string]control.Counts{}, Faults: map[string]string{}}
	for _, s := range parts {
		addCounts(sum.Groups, s.Groups)
		sum.New, sum.Kept = sum.New+s.New, sum.Kept+s.Kept
		maps.Copy(sum.Faults, s.Faults)
		sum.FaultCount += max(s.FaultCount, len(s.Faults))
	}
	return sum
}

// part is where a run stage stands on one node.
type part struct {
	node   string
	lead   bool
	status control.RunStatus
	// lost says why the node's instances were given up; empty: they weren't.
	lost string
}

// over says whether nothing more comes from there.
func (p part) over() bool { return p.lost != "" || p.status.Done }

// sumRun is where a run stage stands on all nodes together.
func sumRun(parts []part) control.RunStatus {
	sum := control.RunStatus{Done: true, Groups: map[string]control.Counts{}}
	for _, p := range parts {
		s := p.status
		addCounts(sum.Groups, s.Groups)
		sum.Done = sum.Done && p.over()
		sum.Key = s.Key
		if !s.Started.IsZero() && (sum.Started.IsZero() || s.Started.Before(sum.Started)) {
			sum.Started = s.Started
		}
		if s.Ended.After(sum.Ended) {
			sum.Ended = s.Ended
		}
		if f := s.FirstFailure; f != nil && (sum.FirstFailure == nil || f.Ended.Before(sum.FirstFailure.Ended)) {
			sum.FirstFailure = f
		}
		sum.Failing = append(sum.Failing, s.Failing...)
		sum.TimedOut = sum.TimedOut || s.TimedOut
		sum.Halted = sum.Halted || s.Halted
		sum.FailedFast = sum.FailedFast || s.FailedFast
		sum.Unfinished += s.Unfinished
		sum.Lost += s.Lost
		if s.Fault != "" && sum.Fault == "" {
			sum.Fault = fmt.Sprintf("on node %s: %s", p.node, s.Fault)
		}
		if p.lead {
			sum.Event, sum.Missed = s.Event, s.Missed
		}
	}
	slices.SortFunc(sum.Failing, sidecars.ByInstance)
	sum.Failing = slices.Compact(sum.Failing)
	sum.Failing = sum.Failing[:min(len(sum.Failing), mostFailing)]
	return sum
}

// addCounts adds counts by group.
func addCounts(sum, part map[string]control.Counts) {
	for name, c := range part {
		s := sum[name]
		s.Total += c.Total
		s.Placed += c.Placed
		s.Running += c.Running
		s.Succeeded += c.Succeeded
		s.Failed += c.Failed
		s.Crashed += c.Crashed
		s.Silent += c.Silent
		s.Killed += c.Killed
		sum[name] = s
	}
}

// failures counts the instances that did not succeed by their own doing.
func failures(s control.RunStatus) int {
	count := 0
	for _, c := range s.Groups {
		count += c.Failed + c.Crashed + c.Silent
	}
	return count
}
