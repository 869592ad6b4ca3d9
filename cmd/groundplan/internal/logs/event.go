package logs

import (
	"encoding/json"
	"strings"
	"time"
)

// event is a line that the SDKs write for groundplan (see instance-contract.md, "Outcomes").
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

// Readable turns an event line into what it says to a person, and leaves every other line as it is.
func Readable(line string) string {
	if !strings.HasPrefix(line, `{"`) || !strings.Contains(line, `"event":{`) {
		return line
	}
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Event == nil {
		return line
	}
	text := ""
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
		return line
	}
	return time.Unix(0, e.TS).UTC().Format("15:04:05.000") + " " + text
}
