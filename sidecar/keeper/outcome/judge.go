package outcome

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

// longestReason bounds what of an instance's own words gets into a reason, in bytes.
const longestReason = 300

// End is how an instance's process ended.
type End struct {
	// Exit is the exit status, -1 when a signal ended it; Signal names that one (SIGSEGV).
	Exit   int
	Signal string
	// Cut is why the sidecar killed it, as a sentence; empty when it ended by itself.
	Cut string
	// Event is the event that killed it, as sentences call it ("the event churn"); empty when none did.
	Event string
	// Panic is what a Go program said last, see the function of that name.
	Panic string
}

// Judge says what became of an instance (control.OutcomeSucceeded and so on) and why, in one sentence that is empty
// for success. mode is who decides: pipelines.OutcomeReport or pipelines.OutcomeExit.
//
// A crash or failure that was reported counts in both modes, also from an instance that had to be killed. A reported
// success counts only where reports decide, and there whatever the exit status; but not for a process that crashed all
// the same: by a signal that the sidecar didn't send, or by a panic.
func Judge(mode string, report Report, end End) (result, reason string) {
	byReport := mode != pipelines.OutcomeExit
	switch {
	case report.Crash:
		return control.OutcomeCrashed, words("panicked", report.Crashed)
	case report.Failure:
		return control.OutcomeFailed, words("reported failure", report.Failed)
	case (end.Cut != "" || end.Event != "") && byReport && report.Success:
		return control.OutcomeSucceeded, ""
	case end.Event != "":
		return control.OutcomeKilled, "killed by " + end.Event
	case end.Cut != "":
		return control.OutcomeFailed, end.Cut
	case end.Signal == "SIGABRT" && end.Panic != "": // a Go program under GOTRACEBACK=crash
		return control.OutcomeCrashed, words("panicked", end.Panic)
	case end.Signal != "" && report.Success:
		return control.OutcomeCrashed, "killed by " + end.Signal + " after it had reported success"
	case end.Signal != "":
		return control.OutcomeCrashed, "killed by " + end.Signal
	case end.Panic != "" && report.Success:
		return control.OutcomeCrashed, words("panicked after it had reported success", end.Panic)
	case byReport && report.Success, !byReport && end.Exit == 0:
		return control.OutcomeSucceeded, ""
	case end.Panic != "":
		return control.OutcomeCrashed, words("panicked", end.Panic)
	case !byReport:
		return control.OutcomeFailed, fmt.Sprintf("exited with status %d", end.Exit)
	case end.Exit == 0:
		return control.OutcomeSilent, "exited with status 0 without reporting an outcome"
	default:
		return control.OutcomeFailed, fmt.Sprintf("exited with status %d without reporting an outcome", end.Exit)
	}
}

// words puts what an instance said behind what it did, on one line.
func words(did, said string) string {
	said = strings.Join(strings.Fields(message(said)), " ")
	if said == "" {
		return did
	}
	return did + ": " + Cut(said, longestReason)
}

// message is what of an instance's words a person wants first: without the stacks of goroutines that a program may put
// around it, and the message of a panic where one stands among them.
func message(said string) string {
	if !strings.Contains(said, "goroutine ") {
		return said
	}
	before, dump := "", false
	for line := range strings.Lines(said) {
		if panicked, ok := strings.CutPrefix(line, "panic: "); ok {
			return panicked
		}
		dump = dump || strings.HasPrefix(line, "goroutine ")
		if !dump {
			before += line
		}
	}
	if strings.TrimSpace(before) == "" {
		return said
	}
	return before
}

// Cut shortens a text to at most limit bytes, at a character's end, and shows that it did.
func Cut(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	const more = "…"
	end := limit - len(more)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}

// Decided reports whether an instance's report settles what becomes of it, however its process ends.
func Decided(mode string, report Report) bool {
	return report.Crash || report.Failure || mode != pipelines.OutcomeExit && report.Success
}
