package pipelines

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestUnits(t *testing.T) {
	tests := []struct {
		kind      kind
		text      string
		want      any
		canonical string
	}{
		{kindDuration, "80ms", Duration(80e6), "80ms"},
		{kindDuration, "2m", Duration(120e9), "2m"},
		{kindDuration, "60m", Duration(3600e9), "1h"},
		{kindDuration, "1h0m1s", Duration(3601e9), "1h0m1s"},
		{kindDuration, "500us", Duration(500e3), "500us"},
		{kindDuration, "500µs", Duration(500e3), "500us"},
		{kindDuration, "0s", Duration(0), "0s"},
		{kindDuration, "-1.5s", Duration(-15e8), "-1.5s"},
		{kindSize, "64Mi", Size(64 << 20), "64Mi"},
		{kindSize, "64MiB", Size(64 << 20), "64Mi"},
		{kindSize, "10MB", Size(10e6), "10MB"},
		{kindSize, "1.5Gi", Size(3 << 29), "1536Mi"},
		{kindSize, "1024B", Size(1024), "1Ki"},
		{kindSize, "1001B", Size(1001), "1001B"},
		{kindSize, "0B", Size(0), "0B"},
		{kindSize, "9223372036854775807B", Size(1<<63 - 1), "9223372036854775807B"},
		{kindBandwidth, "20Mbit", Bandwidth(20e6), "20Mbit"},
		{kindBandwidth, "0.5Gbit", Bandwidth(5e8), "500Mbit"},
		{kindBandwidth, "1500bit", Bandwidth(1500), "1500bit"},
		{kindShare, "5%", Share(0.05), "5%"},
		{kindShare, "7%", Share(0.07), "7%"},
		{kindShare, "0.1%", Share(0.001), "0.1%"},
		{kindShare, "100%", Share(1), "100%"},
		{kindShare, "0%", Share(0), "0%"},
		{kindShare, "33.333%", Share(0.33333), "33.333%"},
		{kindShare, "0.0000001%", Share(1e-9), "0.0000001%"},
		{kindCores, "50m", int64(50), "50"},
		{kindCores, "0.5", int64(500), "500"},
		{kindCores, "2", int64(2000), "2000"},
	}
	for _, tt := range tests {
		got, err := tt.kind.parseText(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("%s %q: got %v (%v), want %v", tt.kind, tt.text, got, err, tt.want)
			continue
		}
		if text := textOf(got); text != tt.canonical {
			t.Errorf("%s %q: written %q, want %q", tt.kind, tt.text, text, tt.canonical)
		}
	}
}

func TestUnitsRefused(t *testing.T) {
	tests := []struct {
		kind kind
		text string
		want string // in the message
	}{
		{kindDuration, "80", "the bare number `80` has no unit"},
		{kindDuration, "0", "has no unit"},
		{kindDuration, "", "missing"},
		{kindDuration, "1d", "use hours"},
		{kindDuration, "fast", "is not a duration"},
		{kindDuration, "99999999999h", "too long"},
		{kindSize, "64", "has no unit"},
		{kindSize, "64mb", "did you mean `MB`?"},
		{kindSize, "64X", "known: Ti"},
		{kindSize, "0.5B", "not a whole number"},
		{kindSize, "9223372036854775808B", "too large"},
		{kindSize, "1e3MB", "is not a size"},
		{kindSize, "-1MB", "is not a size"},
		{kindSize, strings.Repeat("9", 100) + "B", "at most 64 characters"},
		{kindBandwidth, "20Mbps", "did you mean `Mbit`?"},
		{kindBandwidth, "20MB/s", "has no unit that a bandwidth knows"},
		{kindBandwidth, "10000000Tbit", "too large"},
		{kindShare, "0.05", "has no unit"},
		{kindShare, "101%", "outside"},
		{kindShare, "-1%", "is not a share"},
		{kindShare, "%", "is not a share"},
		{kindCores, "50x", "is not a number of cores"},
		{kindCores, "0.0001", "multiple of 0.001"},
		{kindCores, "1e9", "is not a number of cores"},
		{kindInt, "9223372036854775808", "64 bits"},
		{kindInt, "1.5", "not an integer"},
		{kindFloat, "inf", "is not a number"},
		{kindFloat, "1e999", "is not a number"},
		{kindBool, "yes", "is not true or false"},
	}
	for _, tt := range tests {
		got, err := tt.kind.parseText(tt.text)
		if err == nil || got != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %q: got %v, error %v, want %q", tt.kind, tt.text, got, err, tt.want)
		}
	}
}

func TestUnitsInJSON(t *testing.T) {
	type all struct {
		D Duration
		S Size
		B Bandwidth
		P *Share
		O Duration `json:",omitempty"`
		M map[string]Share
	}
	share := Share(0.25)
	in := all{80e6, 1 << 20, 1e6, &share, 0, map[string]Share{"x": 0.1}}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"D":"80ms","S":"1Mi","B":"1Mbit","P":"25%","M":{"x":"10%"}}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
	var back all
	if err := json.Unmarshal(text, &back); err != nil || back.D != in.D || *back.P != *in.P || back.M["x"] != in.M["x"] {
		t.Errorf("read back %+v (%v)", back, err)
	}
	if err := json.Unmarshal([]byte(`{"D":"80"}`), &back); err == nil {
		t.Error("a bare number is taken")
	}
}

func TestValues(t *testing.T) {
	in := Values{"whole": 2.0, "huge": 1e20, "part": 0.5, "int": int64(1<<62 + 1), "negative": int64(-3), "text": "2", "on": true}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var back Values
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	for name, want := range in {
		if back[name] != want {
			t.Errorf("%s: got %T %v, want %T %v", name, back[name], back[name], want, want)
		}
	}
	if err := json.Unmarshal([]byte(`{"x": 99999999999999999999}`), &back); err == nil {
		t.Error("a number beyond 64 bits is taken")
	}
	if text, _ := json.Marshal(Values(nil)); string(text) != "null" {
		t.Errorf("nil is written %s", text)
	}
	if err := json.Unmarshal([]byte("null"), &back); err != nil || back != nil {
		t.Errorf("null is read as %v (%v)", back, err)
	}
}

func TestAnchors(t *testing.T) {
	tests := []struct {
		text string
		want Anchor
		err  string
	}{
		{"30s", Anchor{Offset: 30e9}, ""},
		{"30s + 5s", Anchor{Offset: 35e9}, ""},
		{"half-done", Anchor{State: "half-done"}, ""},
		{"split.healed + 10s", Anchor{State: "split", Healed: true, Offset: 10e9}, ""},
		{"split+1m", Anchor{State: "split", Offset: 60e9}, ""},
		{"split + -1m", Anchor{}, "can't be negative"},
		{"split + 10", Anchor{}, "has no unit"},
		{"-5s", Anchor{}, "before the start"},
		{"10", Anchor{}, "has no unit"},
		{".healed", Anchor{}, "is not a"},
		{"a b", Anchor{}, "is not a moment"},
	}
	for _, tt := range tests {
		got, err := parseAnchor(tt.text)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want %q", tt.text, err, tt.err)
			}
		} else if err != nil || got != tt.want {
			t.Errorf("%q: got %+v (%v), want %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestCron(t *testing.T) {
	for _, text := range []string{"0 2 * * *", "*/5 * * * *", "0,30 8-18 1 jan,Feb mon-fri", "@daily", "0 0 * * 7", "0-30/10 * * * *"} {
		if err := checkCron(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", "* * * *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *", "@often", "1- * * * *"} {
		if err := checkCron(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"instances", "artifact", "onFailure", "max-parallel", "eu", "us"}
	for given, want := range map[string]string{
		"instnaces": "instances", "instance": "instances", "onfailure": "onFailure", "on_failure": "onFailure", "maxParallel": "max-parallel",
		"zzz": "", "": "", "as": "us", "artefact": "artifact", strings.Repeat("x", 100): "",
	} {
		if got := nearest(given, names); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}

func TestExcerpt(t *testing.T) {
	f := Fault{File: "f.yaml", Line: 7, Column: 301, Message: "wrong", Source: strings.Repeat("a", 300) + "X" + strings.Repeat("b", 300)}
	lines := strings.Split(f.Error(), "\n")
	if len(lines) != 3 {
		t.Fatalf("got %q", lines)
	}
	caret := strings.IndexByte(lines[2], '^')
	if got := []rune(lines[1])[caret]; got != 'X' {
		t.Errorf("the caret stands under %q:\n%s", got, f.Error())
	}
	tabs := Fault{File: "f.yaml", Line: 7, Column: 3, Message: "wrong", Source: "\t\tX"}.Error()
	if !strings.HasSuffix(tabs, "|\t\t^") && !strings.HasSuffix(tabs, "| \t\t^") {
		t.Errorf("tabs are lost: %q", tabs)
	}
}
