package relay

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the handshake of RFC 6455 wants it
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// longestHead bounds the head of an HTTP request or answer, in bytes.
const longestHead = 16 << 10

// head is the head of an HTTP message: its first line's fields and what is looked at of the others.
type head struct {
	raw    []byte
	fields []string // of the first line, at most three
	values map[string]string
}

var errHead = fmt.Errorf("that is no head of an HTTP message of at most %d bytes", longestHead)

// readHead reads up to the empty line.
func readHead(in *bufio.Reader) (head, error) {
	h := head{values: make(map[string]string)}
	for begin := 0; ; {
		part, err := in.ReadSlice('\n')
		if h.raw = append(h.raw, part...); len(h.raw) > longestHead {
			return h, errHead
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return h, within(err)
		}
		line := strings.TrimRight(string(h.raw[begin:]), "\r\n")
		begin = len(h.raw)
		switch {
		case h.fields == nil:
			if h.fields = strings.SplitN(line, " ", 3); len(h.fields) < 2 {
				return h, errHead
			}
		case line == "":
			return h, nil
		default:
			name, value, _ := strings.Cut(line, ":")
			h.values[strings.ToLower(name)] = strings.TrimSpace(value)
		}
	}
}

// upgrades is whether a request begins a WebSocket.
func (h *head) upgrades() bool {
	return h.fields[0] == "GET" && strings.EqualFold(h.values["upgrade"], "websocket") && h.values["sec-websocket-key"] != ""
}

// query is what stands behind the question mark of a request's target.
func (h *head) query() string {
	_, query, _ := strings.Cut(h.fields[1], "?")
	return query
}

// frame is the largest frame that the client says it reads, 0 where it doesn't.
func (h *head) frame() int {
	values, err := url.ParseQuery(h.query())
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(values.Get("frame"))
	return n
}

// acceptance is the answer to a client's handshake.
func (h *head) acceptance() []byte {
	sum := sha1.Sum([]byte(h.values["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
}

// handshake asks the gateway for a WebSocket in the name of a client, under the session's id.
func (h *head) handshake(session string) []byte {
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	query := "relay=" + session
	if q := h.query(); q != "" {
		query += "&" + q
	}
	return []byte("GET /?" + query + " HTTP/1.1\r\nHost: groundplan\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.StdEncoding.EncodeToString(key[:]) + "\r\n\r\n")
}

// refusal is an answer of the gateway that isn't a WebSocket.
type refusal struct {
	status string
	body   []byte
}

func (r *refusal) Error() string { return "the gateway answers " + r.status }

// passing is whether the refusal may be due to a gateway that is still finding out who is there.
func (r *refusal) passing() bool { return r.status == "403" || strings.HasPrefix(r.status, "5") }

// bytes is the refusal as an answer to the client.
func (r *refusal) bytes() []byte {
	return append([]byte("HTTP/1.1 "+r.status+" Refused\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Content-Length: "+strconv.Itoa(len(r.body))+"\r\n\r\n"), r.body...)
}

// readAnswer reads the gateway's answer to a handshake: nil when there is a WebSocket now.
func readAnswer(in *bufio.Reader) error {
	h, err := readHead(in)
	if err != nil {
		return err
	}
	if h.fields[1] == "101" {
		return nil
	}
	size, _ := strconv.Atoi(h.values["content-length"])
	body := make([]byte, max(0, min(size, longestHead)))
	if _, err := io.ReadFull(in, body); err != nil {
		return within(err)
	}
	return &refusal{h.fields[1], body}
}
