package sdk

import (
	"bytes"
	"encoding/json"
)

// The protocol: one JSON document per WebSocket message, replies by the request's id.

type request struct {
	ID        string       `json:"id"`
	Cancel    bool         `json:"is_cancel"`
	Publish   *publishBody `json:"publish,omitempty"`
	Subscribe *topicBody   `json:"subscribe,omitempty"`
	Barrier   *barrierBody `json:"barrier,omitempty"`
	Signal    *stateBody   `json:"signal_entry,omitempty"`
}

type publishBody struct {
	Topic   string          `json:"topic"`
	Payload json.RawMessage `json:"payload"`
}

type topicBody struct {
	Topic string `json:"topic"`
}

type barrierBody struct {
	State  string `json:"state"`
	Target int    `json:"target"`
}

type stateBody struct {
	State string `json:"state"`
}

type sequence struct {
	Seq int64 `json:"seq"`
}

type reply struct {
	ID        string    `json:"id"`
	Error     string    `json:"error"`
	Publish   *sequence `json:"publish"`
	Subscribe string    `json:"subscribe"` // a JSON document as a string
	Signal    *sequence `json:"signal_entry"`
}

// encode is json.Marshal, but leaves <, > and & as they are: there is no HTML here, and six bytes for one are many.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
