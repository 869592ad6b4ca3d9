package sidecars

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Noted is the result of a stage that did what it was asked, with a note that may be empty.
func Noted(note string) stage.Result {
	result := stage.Result{Verdict: stage.Passed}
	if note != "" {
		result.Notes = []string{note}
	}
	return result
}

// Invalid is the result of a stage whose ground isn't fit, with the sentence why.
func Invalid(format string, args ...any) stage.Result {
	return stage.Result{Verdict: stage.Invalid, Reason: fmt.Sprintf(format, args...)}
}

// Progress is a status in counts.
func Progress(status control.RunStatus) stage.Progress {
	p := stage.Progress{Note: status.Event}
	for _, c := range status.Groups {
		p.Total += c.Total
		p.Placed += c.Placed
		p.Running += c.Running
		p.Succeeded += c.Succeeded
		p.Failed += c.Failed + c.Crashed + c.Silent
		p.Killed += c.Killed
	}
	p.Waiting = max(p.Total-p.Running-p.Succeeded-p.Failed-p.Killed, 0)
	if first := status.FirstFailure; first != nil {
		p.FirstFailure = fmt.Sprintf("%s/%d: %s", first.Group, first.Index, first.Reason)
	}
	return p
}

// Unplaced says which of the groups that are needed was never placed; empty when all were.
func Unplaced(need, placed []string) string {
	for _, name := range need {
		if !slices.Contains(placed, name) {
			return fmt.Sprintf("group %s has not been placed: it needs a schedule stage before this one", name)
		}
	}
	return ""
}

// PlacedOf counts the placed instances of groups.
func PlacedOf(groups []string, status control.Status) int {
	placed := 0
	for _, name := range groups {
		placed += status.Groups[name].Placed
	}
	return placed
}

// Shown is how many faults a reason spells out.
const Shown = 3

// Placed says what became of a placement.
func Placed(in stage.Input, groups []string, status control.Status) stage.Result {
	result := stage.Result{Verdict: stage.Passed, Placed: status.New, Kept: status.Kept}
	faults := max(status.FaultCount, len(status.Faults))
	if faults == 0 {
		return result
	}
	result.Verdict = stage.Invalid
	names := slices.SortedFunc(maps.Keys(status.Faults), ByInstance)
	result.Failing = names[:min(len(names), 10)]
	var why []string
	for _, name := range names[:min(len(names), Shown)] {
		why = append(why, name+": "+status.Faults[name])
	}
	if faults > len(why) {
		why = append(why, "…")
	}
	result.Reason = fmt.Sprintf("%d of %s could not be placed: %s", faults, Count(Instances(in, groups)), strings.Join(why, "; "))
	return result
}

// ByInstance orders group/index by group and then by number.
func ByInstance(a, b string) int {
	groupA, indexA, _ := strings.Cut(a, "/")
	groupB, indexB, _ := strings.Cut(b, "/")
	if groupA != groupB {
		return strings.Compare(groupA, groupB)
	}
	if len(indexA) != len(indexB) {
		return len(indexA) - len(indexB)
	}
	return strings.Compare(indexA, indexB)
}

// Count is a number of instances in words.
func Count(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", n)
}

// Outside names the links that are not as asked; empty when all that were probed are.
func Outside(reply control.NetworkReply) string {
	if reply.Faults == 0 || reply.Proof == nil {
		return ""
	}
	var faults []string
	for _, p := range reply.Proof.Pairs {
		if !p.OK && len(faults) < Shown {
			faults = append(faults, fmt.Sprintf("%s → %s: %s", p.From, p.To, p.Fault))
		}
	}
	if reply.Faults > len(faults) {
		faults = append(faults, "…")
	}
	are := "are"
	if reply.Faults == 1 {
		are = "is"
	}
	return fmt.Sprintf("%d of %d links that were probed %s not as asked: %s", reply.Faults, reply.Pairs, are, strings.Join(faults, "; "))
}

// Size is a size for a person.
func Size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}
