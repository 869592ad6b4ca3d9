package said

import "testing"

func TestLine(t *testing.T) {
	for line, want := range map[string]string{
		"plain":                                    "",
		`{"json":"of the plan"}`:                   "",
		`{"ts":0,"event":{"unknown_event":{}}}`:    "",
		`{"ts":0,"event":{"message_event":`:        "",
		`{"ts":0,"event":{"start_event":{"a":1}}}`: "00:00:00.000 started",
		`{"ts":0,"event":{"success_event":{}}}`:    "00:00:00.000 success",
		`{"ts":1500000000,"msg":"","group_id":"g","run_id":"r","event":{"message_event":{"message":"hi"}}}`: "00:00:01.500 hi",
		`{"ts":0,"event":{"failure_event":{"group":"g","error":"boom"}}}`:                                   "00:00:00.000 failure: boom",
		`{"ts":0,"event":{"crash_event":{"error":"boom","stacktrace":"main.go:3"}}}`:                        "00:00:00.000 crash: boom\nmain.go:3",
		`{"ts":0,"event":{"stage_start_event":{"name":"n"}}}`:                                               "00:00:00.000 begins: n",
		`{"ts":0,"event":{"stage_end_event":{"name":"n"}}}`:                                                 "00:00:00.000 ends: n",
	} {
		got := ""
		if at, text, ok := Line(line); ok {
			got = at.Format("15:04:05.000") + " " + text
		}
		if got != want {
			t.Errorf("Line(%s) = %q, want %q", line, got, want)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add(`{"ts":0,"event":{"message_event":null}}`)
	f.Add(`{"ts":1e99,"event":{"failure_event":{"error":3}}}`)
	f.Fuzz(func(t *testing.T, line string) { _, _, _ = Line(line) })
}
