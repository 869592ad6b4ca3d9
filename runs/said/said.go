// Package said makes readable what the SDKs write about a plan's course into its output.
package said

import (
	"encoding/json"
	"strings"
	"time"
)

// event is a line that the SDKs write for groundplan (instance-contract.md, "Outcomes").
type event struct {
	TS    int64 `json:"ts"`
	Event *struct {
		Start   *json.RawMessage `json:"start_event"`
		Message *struct {
			Message string `json:"message"`
		} `json:"message_event"`
		Success *json.RawMessage `json:"success_event"`
		Failure *struct {
			Error string `json:"error"`
		} `json:"failure_event"`
		Crash *struct {
			Error      string `json:"error"`
			Stacktrace string `json:"stacktrace"`
		} `json:"crash_event"`
		StageStart *named `json:"stage_start_event"`
		StageEnd   *named `json:"stage_end_event"`
	} `json:"event"`
}

type named struct {
	Name string `json:"name"`
}

// Line is when an SDK said something, and what it says to a person, on one line or more; false for every line that isn't an
// SDK's.
func Line(line string) (at time.Time, text string, ok bool) {
	if !strings.HasPrefix(line, `{"`) || !strings.Contains(line, `"event":{`) {
		return time.Time{}, "", false
	}
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Event == nil {
		return time.Time{}, "", false
	}
	switch v := e.Event; {
	case v.Start != nil:
		text = "started"
	case v.Message != nil:
		text = v.Message.Message
	case v.Success != nil:
		text = "success"
	case v.Failure != nil:
		text = "failure: " + v.Failure.Error
	case v.Crash != nil:
		text = strings.TrimSpace("crash: " + v.Crash.Error + "\n" + v.Crash.Stacktrace)
	case v.StageStart != nil:
		text = "begins: " + v.StageStart.Name
	case v.StageEnd != nil:
		text = "ends: " + v.StageEnd.Name
	default:
		return time.Time{}, "", false
	}
	return time.Unix(0, e.TS).UTC(), text, true
}
