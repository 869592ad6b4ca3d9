package sidecars

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Outcome is the verdict on a run stage that ended. Instances that an event killed for good say nothing about the subject:
// they are not among those that must succeed.
func Outcome(in stage.Input, status control.RunStatus) stage.Result {
	status.Failing = slices.SortedFunc(slices.Values(status.Failing), ByInstance)
	result := stage.Result{
		Verdict:  stage.Passed,
		Started:  status.Started,
		Ended:    status.Ended,
		Outcomes: map[string]pipelines.Outcomes{},
		Failing:  status.Failing,
		Notes:    status.Missed,
	}
	total, succeeded := 0, 0
	for name, c := range status.Groups {
		result.Outcomes[name] = pipelines.Outcomes{Succeeded: c.Succeeded, Failed: c.Failed, Crashed: c.Crashed, Silent: c.Silent, Killed: c.Killed}
		total += c.Total - c.Killed
		succeeded += c.Succeeded
	}
	share := float64(in.Stage.Run.Success)
	enough := succeeded >= MustSucceed(share, total)
	reason := why(in, status, total, succeeded)
	switch {
	case status.Fault != "": // of the ground, whatever the outcomes say, and whoever halted the stage
		result.Verdict, result.Reason = stage.Invalid, status.Fault
	case status.Halted:
		result.Verdict, result.Reason = stage.Cancelled, "somebody halted the stage before all of its instances had ended"
	case !enough:
		result.Verdict, result.Reason = stage.Failed, reason
	case succeeded < total:
		result.Notes = append(result.Notes, reason)
	}
	return result
}

// why says which instances did not succeed, and why the first of them.
func why(in stage.Input, status control.RunStatus, total, succeeded int) string {
	missing := total - succeeded
	if missing == 0 {
		return ""
	}
	switch {
	case status.TimedOut:
		return timedOut(in, status, total, missing)
	case status.FailedFast:
		text := "ended at the first failure (failFast)"
		if status.Unfinished > 0 {
			text += fmt.Sprintf(" while %d of %s were running", status.Unfinished, Count(total))
		}
		return text + first(status)
	}
	text := fmt.Sprintf("%d of %s did not succeed", missing, Count(total))
	if share := in.Stage.Run.Success; share < 1 {
		text += fmt.Sprintf(" where %d must", MustSucceed(float64(share), total))
	}
	return text + listed(status.Failing, missing) + first(status)
}

// timedOut is why for a stage that was ended by its timeout.
func timedOut(in stage.Input, status control.RunStatus, total, missing int) string {
	were := "were"
	if status.Unfinished == 1 {
		were = "was"
	}
	text := fmt.Sprintf("timed out after %s: %d of %s %s still running", timeout(in, status), status.Unfinished, Count(total), were)
	if others := missing - status.Unfinished; others > 0 {
		return text + fmt.Sprintf(", and %d did not succeed", others) + listed(status.Failing, missing) + first(status)
	}
	return text + listed(status.Failing, missing)
}

// timeout is the stage's timeout as a person writes it.
func timeout(in stage.Input, status control.RunStatus) string {
	d := time.Duration(in.Stage.Timeout)
	if d == 0 {
		d = in.Deadline.Sub(status.Started).Round(time.Second)
	}
	return short(d)
}

// short writes a duration without the zeros at its end: 10m, not 10m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// listed is ` (g/3, g/7)`, with an ellipsis when there are more than are named.
func listed(names []string, all int) string {
	if len(names) == 0 {
		return ""
	}
	text := strings.Join(names, ", ")
	if all > len(names) {
		text += ", …"
	}
	return " (" + text + ")"
}

// first is `; g/3: panicked: …`.
func first(status control.RunStatus) string {
	f := status.FirstFailure
	if f == nil {
		return ""
	}
	return fmt.Sprintf("; %s/%d: %s", f.Group, f.Index, f.Reason)
}
