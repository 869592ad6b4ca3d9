package report

import (
	"encoding/json"
	"strings"
)

// said is a line that the SDKs write about a plan's course (instance-contract.md, "Outcomes").
type said struct {
	Event *struct {
		Start   *struct{} `json:"start_event"`
		Success *struct{} `json:"success_event"`
		Message *struct {
			Message string `json:"message"`
		} `json:"message_event"`
		Failure *struct {
			Error string `json:"error"`
		} `json:"failure_event"`
		Crash *struct {
			Error      string `json:"error"`
			Stacktrace string `json:"stacktrace"`
		} `json:"crash_event"`
		Begins *struct {
			Name string `json:"name"`
		} `json:"stage_start_event"`
		Ends *struct {
			Name string `json:"name"`
		} `json:"stage_end_event"`
	} `json:"event"`
}

// readable turns a line about a plan's course into what it says to a person, and leaves every other line as it is.
func readable(line string) []string {
	if !strings.HasPrefix(line, `{"`) || !strings.Contains(line, `"event":{`) {
		return []string{line}
	}
	var s said
	if json.Unmarshal([]byte(line), &s) != nil || s.Event == nil {
		return []string{line}
	}
	switch e := s.Event; {
	case e.Start != nil:
		return []string{"started"}
	case e.Message != nil:
		return []string{e.Message.Message}
	case e.Success != nil:
		return []string{"success"}
	case e.Failure != nil:
		return []string{"failure: " + e.Failure.Error}
	case e.Crash != nil:
		return append([]string{"crash: " + e.Crash.Error}, strings.Split(strings.TrimSpace(e.Crash.Stacktrace), "\n")...)
	case e.Begins != nil:
		return []string{"begins: " + e.Begins.Name}
	case e.Ends != nil:
		return []string{"ends: " + e.Ends.Name}
	}
	return []string{line}
}
