package elasticsearch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzText makes sure that any bytes become the JSON string that encoding/json would make of them.
func FuzzText(f *testing.F) {
	for _, seed := range []string{"", "plain", "\"\\\n\t\x00\x1f\x7f", "é\u2028\U0001f600", "\xff\xc3", "a\xed\xa0\x80b", "\xf0\x9f"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, want string
		if err := json.Unmarshal(appendText(nil, text), &got); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		encoded, err := json.Marshal(string(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(encoded, &want); err != nil || got != want {
			t.Errorf("%q became %q, want %q (%v)", text, got, want, err)
		}
		if again := appendText(nil, string(text)); !bytes.Equal(again, appendText(nil, text)) {
			t.Errorf("%q: a string becomes %q", text, again)
		}
	})
}

// FuzzLog makes a document of any line, which must be JSON without a line's end.
func FuzzLog(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"ts":1795399205000000000,"event":{"a":1}}`, `{"ts":"x","time":1e400}`, "2026-11-23T02:00:00Z x", "time=2026-11-23T02:00:00", `{"event":[`} {
		f.Add([]byte(seed))
	}
	nothing := newTimeline(nil, nil)
	w := newWriter(run(f, nil).Input.Run, "test", &nothing)
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.ContainsAny(text, "\n") {
			return
		}
		d := w.log(w.origin("eu", 1, "run.out"), line{offset: 7, number: 1, text: text, length: int64(len(text))})
		if !json.Valid(d.body) || bytes.ContainsAny(d.body, "\n") {
			t.Errorf("%q became %q", text, d.body)
		}
		if without := append(d.body[:max(d.event, 0):max(d.event, 0)], '}'); d.event > 0 && !json.Valid(without) {
			t.Errorf("%q becomes %q", text, without)
		}
	})
}

func TestTimes(t *testing.T) {
	want := time.Date(2026, 11, 23, 2, 0, 1, 500_000_000, time.UTC)
	for text, ok := range map[string]bool{
		`1795399201500000000`: true, `1795399201500000`: true, `1795399201500`: true, `1795399201.5`: true, `"2026-11-23T02:00:01.5Z"`: true,
		`"2026-11-23T03:00:01.5+01:00"`: true, `"yesterday"`: false, `-1`: false, `0`: false, `1e300`: false, `null`: false, ``: false, `{}`: false,
	} {
		if got, understood := jsonTime(json.RawMessage(text)); understood != ok || ok && !got.Equal(want) {
			t.Errorf("%s is %v, %v", text, got, understood)
		}
	}
	for text, ok := range map[string]bool{
		"2026-11-23T02:00:01.5Z hello": true, "time=2026-11-23T02:00:01.500Z level=INFO": true, "2026-11-23T02:00:01.500000000Z": true,
		"2026-11-23T03:00:01.5+01:00\thello": true, "2026-11-23 02:00:01 hello": false, "2026": false, "": false, "the 2026-11-23T02:00:01Z": false,
	} {
		if got, understood := leadingTime([]byte(text)); understood != ok || ok && !got.Equal(want) {
			t.Errorf("%s is %v, %v", text, got, understood)
		}
	}
}

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", mostLine)
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil}, {"a", []string{"a"}}, {"a\n", []string{"a"}}, {"\n\n", []string{"", ""}}, {"a\r\nb", []string{"a", "b"}}, {"\r", []string{""}},
		{long + "yyy\nz\n", []string{long, "z"}}, {long + "\r\n", []string{long}},
	} {
		var got []string
		var total int64
		for reader := bufio.NewReaderSize(strings.NewReader(c.text), 16); ; {
			text, length, ended, err := readLine(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			if length == 0 && !ended {
				break
			}
			total += length
			if ended {
				total++
			}
			text, _ = withoutReturn(text, length)
			got = append(got, string(text))
		}
		if !slices.Equal(got, c.want) || total != int64(len(c.text)) {
			t.Errorf("%.20q is %.20q, %d bytes of %d", c.text, got, total, len(c.text))
		}
	}
}

func TestInOrder(t *testing.T) {
	paths := []string{"eu/0/a.log", "eu/0/a/b.log", "eu/0/b.log", "eu/10/a.log", "eu/2/a.log", "eu-west/0/a.log"}
	// A walk meets a before a.log, and eu before eu-west.
	want := []string{"eu/0/a/b.log", "eu/0/a.log", "eu/0/b.log", "eu/10/a.log", "eu/2/a.log", "eu-west/0/a.log"}
	if slices.SortFunc(paths, inOrder); !slices.Equal(paths, want) {
		t.Errorf("got %v", paths)
	}
}

func TestIsText(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "plain\n": true, "\x1b[31mred\x1b[0m\n": true, strings.Repeat("é", 5): true, "cut in the middle of \xc3": true,
		"a line\x00 of a crash, and more of it": true, "\x7fELF\x02\x01\x01\x00\x00\x00": false, "h\x00e\x00l\x00l\x00o\x00": false, "\x00\x00\x00\x00": false,
	} {
		if isText([]byte(text)) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
