package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// plainFrame is what clients of the plain protocol read: their limit of 32,768 bytes has to leave room for the end of
	// the frame.
	plainFrame = 32767
	// largestFrame is the most that a client may ask for with ?frame=.
	largestFrame = 16 << 20
	// requestLimit is the largest request that is read at all: above it the connection is closed, below it a request that
	// is too large is refused by a reply.
	requestLimit = 4 << 20
	// longestID and longestKey bound what a client may choose, in bytes.
	longestID  = 64
	longestKey = 4096
)

// request is one request of a client, checked: exactly one of its bodies is there, or it cancels.
type request struct {
	ID        string            `json:"id"`
	Cancel    bool              `json:"is_cancel"`
	Publish   *publishRequest   `json:"publish"`
	Subscribe *subscribeRequest `json:"subscribe"`
	Barrier   *barrierRequest   `json:"barrier"`
	Signal    *signalRequest    `json:"signal_entry"`
}

type publishRequest struct {
	Topic   string          `json:"topic"`
	Payload json.RawMessage `json:"payload"`
}

type subscribeRequest struct {
	Topic string `json:"topic"`
}

type barrierRequest struct {
	State  string `json:"state"`
	Target int64  `json:"target"`
}

type signalRequest struct {
	State string `json:"state"`
}

// decodeRequest reads one frame. With an error comes as much of the request as could be read, so that the reply finds
// its sender: its ID is empty when not even that was there.
func decodeRequest(frame []byte) (request, error) {
	var r request
	if err := json.Unmarshal(frame, &r); err != nil {
		var id struct {
			ID string `json:"id"`
		}
		_ = json.Unmarshal(frame, &id) // the first error says more than this one
		if len(id.ID) > longestID {
			id.ID = ""
		}
		return request{ID: id.ID}, fmt.Errorf("the request is not the JSON that is expected: %w", err)
	}
	if len(r.ID) > longestID {
		return request{}, fmt.Errorf("the request's id has %d bytes; at most %d are allowed", len(r.ID), longestID)
	}
	if r.ID == "" {
		return r, errors.New("the request has no id")
	}
	if r.Cancel {
		return r, nil
	}
	return r, r.check()
}

// check says what is wrong with the bodies.
func (r *request) check() error {
	bodies := 0
	var key string
	if r.Publish != nil {
		bodies, key = bodies+1, r.Publish.Topic
		if r.Publish.Payload == nil {
			r.Publish.Payload = json.RawMessage("null")
		}
	}
	if r.Subscribe != nil {
		bodies, key = bodies+1, r.Subscribe.Topic
	}
	if r.Barrier != nil {
		bodies, key = bodies+1, r.Barrier.State
	}
	if r.Signal != nil {
		bodies, key = bodies+1, r.Signal.State
	}
	if bodies != 1 {
		return fmt.Errorf("the request has %d of publish, subscribe, barrier and signal_entry; it needs exactly one", bodies)
	}
	return checkKey(key)
}

func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("the topic or state has no name")
	case len(key) > longestKey:
		return fmt.Errorf("the name of the topic or state has %d bytes; at most %d are allowed", len(key), longestKey)
	}
	return nil
}

// A reply is put together of the request's id and the bytes around it: what stands behind the id is the same for all
// subscribers of a topic and is made once.
const (
	replyStart  = `{"id":`
	barrierRest = `,"error":"","publish":null,"subscribe":"","signal_entry":null}`
	itemStart   = `,"error":"","publish":null,"subscribe":`
	itemEnd     = `,"signal_entry":null}`
)

func appendReply(b []byte, id, rest string) []byte {
	b = append(b, replyStart...)
	b = appendString(b, id)
	return append(b, rest...)
}

func appendPublished(b []byte, id string, seq int64) []byte {
	b = appendReply(b, id, `,"error":"","publish":{"seq":`)
	b = strconv.AppendInt(b, seq, 10)
	return append(b, `},"subscribe":"","signal_entry":null}`...)
}

func appendSignalled(b []byte, id string, seq int64) []byte {
	b = appendReply(b, id, `,"error":"","publish":null,"subscribe":"","signal_entry":{"seq":`)
	b = strconv.AppendInt(b, seq, 10)
	return append(b, `}}`...)
}

// appendFailed writes a reply with an error; it always fits a plain frame.
func appendFailed(b []byte, id string, err error) []byte {
	message := err.Error()
	const most = 2048
	if len(message) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(message[cut]) {
			cut--
		}
		message = message[:cut] + "…"
	}
	if message == "" {
		message = "failed without a reason"
	}
	b = appendReply(b, id, `,"error":`)
	b = appendString(b, message)
	return append(b, `,"publish":null,"subscribe":"","signal_entry":null}`...)
}

// encodeItem makes what a subscription's reply holds behind the id: the payload as a JSON string.
func encodeItem(payload []byte) string {
	b := make([]byte, 0, len(payload)+len(payload)/8+96)
	b = append(b, itemStart...)
	b = appendString(b, payload)
	b = append(b, itemEnd...)
	return string(b)
}

// frameSize is the largest that the reply with this item can get, whatever the subscriber's id.
func frameSize(item string) int { return len(replyStart) + longestID + 2 + len(item) }

const hex = "0123456789abcdef"

// appendString writes s as a JSON string. encoding/json would do, but escapes <, > and & to six bytes each, and
// payloads are bounded by the size of a frame.
func appendString[S string | []byte](b []byte, s S) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if _, size := decodeRune(s[i:]); size > 1 {
				i += size
				continue
			}
		}
		b = append(b, s[start:i]...)
		b = appendEscaped(b, c)
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func decodeRune[S string | []byte](s S) (rune, int) {
	return utf8.DecodeRuneInString(string(s[:min(len(s), utf8.UTFMax)]))
}

func appendEscaped(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	if c >= utf8.RuneSelf { // a byte that is no UTF-8
		return append(b, "\ufffd"...)
	}
	return append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}

// decodeItem is the inverse of encodeItem.
func decodeItem(item string) (json.RawMessage, error) {
	var payload string
	quoted := strings.TrimSuffix(strings.TrimPrefix(item, itemStart), itemEnd)
	if err := json.Unmarshal([]byte(quoted), &payload); err != nil {
		return nil, fmt.Errorf("an item of the topic is no JSON string: %w", err)
	}
	return json.RawMessage(payload), nil
}
