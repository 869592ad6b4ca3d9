package workflows

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// verdict says what the run came to, and why, in one sentence.
func (e *execution) verdict() (stage.Verdict, string) {
	if e.cancelled != "" {
		return stage.Cancelled, "cancelled: " + e.cancelled
	}
	var first *stage.Result
	var also []string
	skipped := 0
	for i, r := range e.results {
		switch {
		case r.Verdict == stage.Skipped:
			skipped++
		case r.Verdict == stage.Passed:
		case first == nil:
			first = &e.results[i]
		default:
			also = append(also, fmt.Sprintf("%q was %s", r.Stage, r.Verdict))
		}
	}
	if first == nil {
		return stage.Passed, passedSentence(len(e.results)-skipped, skipped, e.in.Pipeline.Instances())
	}
	reason := fmt.Sprintf("%s: %s", first.Verdict, sentence(e.in.Pipeline, *first))
	if len(also) > 0 {
		reason += "; then " + strings.Join(also, ", ")
	}
	return first.Verdict, reason
}

func passedSentence(passed, skipped, instances int) string {
	text := fmt.Sprintf("passed: %s, %s", count(passed, "stage"), count(instances, "instance"))
	if skipped > 0 {
		text += fmt.Sprintf("; %s skipped", count(skipped, "stage"))
	}
	return text
}

// sentence says of which stage a result is, how many and which instances did not succeed, and why:
//
//	stage "ping" — 2 of 50 instances did not succeed (eu/3, eu/7): panicked: …
func sentence(p pipelines.Resolved, r stage.Result) string {
	text := fmt.Sprintf("stage %q", r.Stage)
	if r.Attempt > 1 {
		text += fmt.Sprintf(" (attempt %d)", r.Attempt)
	}
	text += " — "
	// An activity's own sentence may have the names in it already; say them once.
	if failing := r.Failing; len(failing) > 0 && !strings.Contains(r.Reason, failing[0]) {
		text += whichInstances(p, r)
		if r.Reason != "" {
			text += ": "
		}
	}
	if r.Reason == "" && len(r.Failing) == 0 {
		text += "it gave no reason"
	}
	return text + r.Reason
}

// whichInstances counts the instances that did not succeed and names some.
func whichInstances(p pipelines.Resolved, r stage.Result) string {
	failed, total := 0, 0
	for _, group := range workflow.DeterministicKeys(r.Outcomes) {
		o := r.Outcomes[group]
		failed += o.Failed + o.Crashed + o.Silent
		total += o.Succeeded + o.Failed + o.Crashed + o.Silent
	}
	if total == 0 {
		total = p.Instances()
	}
	failed = max(failed, len(r.Failing))
	names := strings.Join(r.Failing, ", ")
	if failed > len(r.Failing) {
		names += ", …"
	}
	return fmt.Sprintf("%d of %s did not succeed (%s)", failed, count(total, "instance"), names)
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
