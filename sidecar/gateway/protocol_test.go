package gateway

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDecodeRequest(t *testing.T) {
	long := strings.Repeat("k", longestKey+1)
	for _, c := range []struct{ name, frame, id, want string }{
		{"publish", `{"id":"0","is_cancel":false,"publish":{"topic":"t","payload":{"a":1}}}`, "0", ""},
		{"publish of null", `{"id":"0","publish":{"topic":"t","payload":null}}`, "0", ""},
		{"publish of nothing", `{"id":"0","publish":{"topic":"t"}}`, "0", ""},
		{"null bodies", `{"id":"7","publish":null,"subscribe":null,"barrier":null,"signal_entry":{"state":"s"}}`, "7", ""},
		{"cancel", `{"id":"1","is_cancel":true}`, "1", ""},
		{"unknown keys", `{"id":"1","signal_entry":{"state":"s"},"more":[1]}`, "1", ""},
		{"no JSON", `hello`, "", "not the JSON"},
		{"empty", ``, "", "not the JSON"},
		{"wrong type", `{"id":"4","barrier":{"state":"s","target":"many"}}`, "4", "not the JSON"},
		{"number as id", `{"id":4,"signal_entry":{"state":"s"}}`, "", "not the JSON"},
		{"no id", `{"signal_entry":{"state":"s"}}`, "", "no id"},
		{"long id", `{"id":"` + strings.Repeat("1", 65) + `","signal_entry":{"state":"s"}}`, "", "65 bytes"},
		{"nothing", `{"id":"2"}`, "2", "has 0 of"},
		{"two", `{"id":"2","signal_entry":{"state":"s"},"subscribe":{"topic":"t"}}`, "2", "has 2 of"},
		{"no name", `{"id":"2","subscribe":{"topic":""}}`, "2", "no name"},
		{"long name", `{"id":"2","subscribe":{"topic":"` + long + `"}}`, "2", "4097 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := decodeRequest([]byte(c.frame))
			if r.ID != c.id {
				t.Errorf("id is %q, want %q", r.ID, c.id)
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
}

func TestReplies(t *testing.T) {
	for _, c := range []struct{ name, got, want string }{
		{"published", string(appendPublished(nil, "0", 1)), `{"id":"0","error":"","publish":{"seq":1},"subscribe":"","signal_entry":null}`},
		{"signalled", string(appendSignalled(nil, "12", 1000)), `{"id":"12","error":"","publish":null,"subscribe":"","signal_entry":{"seq":1000}}`},
		{"barrier", string(appendReply(nil, "3", barrierRest)), `{"id":"3","error":"","publish":null,"subscribe":"","signal_entry":null}`},
		{"item", string(appendReply(nil, "3", encodeItem([]byte(`{"a":"<\n>"}`)))), `{"id":"3","error":"","publish":null,"subscribe":"{\"a\":\"<\\n>\"}","signal_entry":null}`},
		{"failed", string(appendFailed(nil, `"`, errors.New("é\x00\xff"))), `{"id":"\"","error":"é\u0000�","publish":null,"subscribe":"","signal_entry":null}`},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, c.got, c.want)
		}
	}
	long := string(appendFailed(nil, "1", errors.New(strings.Repeat("ä", plainFrame))))
	if len(long) > plainFrame || !utf8.ValidString(long) {
		t.Errorf("a long error makes a frame of %d bytes", len(long))
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(`{"id":"0","is_cancel":false,"publish":{"topic":"t","payload":{"a":1}}}`))
	f.Add([]byte(`{"id":"1","barrier":{"state":"s","target":-1}}`))
	f.Add([]byte(`{"id":"2","is_cancel":true,"publish":{}}`))
	f.Add([]byte("[[[[[[[["))
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := decodeRequest(frame)
		var failed reply
		if jsonErr := json.Unmarshal(appendFailed(nil, r.ID, errors.New("x"+string(frame))), &failed); jsonErr != nil {
			t.Fatalf("the error reply is no JSON: %v", jsonErr)
		}
		if err != nil || r.Publish == nil || r.Cancel {
			return
		}
		item := encodeItem(r.Publish.Payload)
		var got reply
		if err := json.Unmarshal(appendReply(nil, r.ID, item), &got); err != nil {
			t.Fatalf("the reply is no JSON: %v", err)
		}
		payload, err := decodeItem(item)
		if err != nil || string(payload) != *got.Subscribe || !json.Valid(payload) {
			t.Fatalf("payload %q came back as %q (%v)", r.Publish.Payload, payload, err)
		}
		if len(appendReply(nil, r.ID, item)) > frameSize(item) && !strings.ContainsAny(r.ID, "\"\\") {
			t.Fatalf("a frame of %d bytes is larger than the %d foreseen", len(appendReply(nil, r.ID, item)), frameSize(item))
		}
	})
}
