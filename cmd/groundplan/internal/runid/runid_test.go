package runid

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestNew(t *testing.T) {
	at := time.Date(2026, 3, 1, 23, 4, 5, 0, time.FixedZone("east", 3600))
	id := New("dht-partition", at)
	if want := "dht-partition-20260301-220405-"; !strings.HasPrefix(id, want) || len(id) != len(want)+4 {
		t.Errorf("id %q", id)
	}
	long := New(strings.Repeat("long-", 12)+"abc", at)
	if err := Check(long + ".10000"); err != nil {
		t.Errorf("the last cell of a matrix: %v", err)
	}
	seen := map[string]bool{}
	for range 50 {
		seen[New("p", at)] = true
	}
	if len(seen) < 45 {
		t.Errorf("50 ids of one second: only %d different", len(seen))
	}
}

func TestCheck(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "A.b_c-1": true, strings.Repeat("x", 63): true, strings.Repeat("x", 64): false,
		"": false, ".": false, "..": false, "-x": false, ".hidden": false, "a/b": false, "a b": false, "ä": false, "a\n": false,
	} {
		if err := Check(id); (err == nil) != ok {
			t.Errorf("Check(%q) = %v", id, err)
		}
	}
}

func TestFind(t *testing.T) {
	ids := []string{"dht-1", "dht-12", "dht-2", "ping-1", "ping-1"}
	for _, c := range []struct{ prefix, want, fault string }{
		{"dht-1", "dht-1", ""}, // the whole of one, though another begins with it
		{"dht-12", "dht-12", ""},
		{"p", "ping-1", ""},
		{"dht", "", `"dht" is the beginning of 3 runs: dht-1, dht-12, dht-2`},
		{"x", "", "no run \"x\": `groundplan list` shows those there are"},
		{"", "", "no run \"\": `groundplan list` shows those there are"},
	} {
		got, err := Find(c.prefix, ids)
		if got != c.want || (err == nil) != (c.fault == "") || err != nil && err.Error() != c.fault {
			t.Errorf("Find(%q) = %q, %v", c.prefix, got, err)
		}
	}
	_, err := Find("r", []string{"r1", "r2", "r3", "r4", "r5", "r6", "r7"})
	var ambiguous *AmbiguousError
	if !errors.As(err, &ambiguous) || !strings.HasSuffix(err.Error(), "and 2 more") {
		t.Errorf("%v", err)
	}
}
