package relay

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// frame makes one as a client does.
func frame(first byte, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := []byte{1, 2, 3, 4}
	b = append(b, mask...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i&3])
	}
	return string(b)
}

func TestFrames(t *testing.T) {
	long := strings.Repeat("abc", 50_000)
	for name, test := range map[string]struct{ in, want string }{
		"text":                {frame(0x81, "hello"), "1 hello"},
		"binary":              {frame(0x82, "x"), "2 x"},
		"empty":               {frame(0x81, ""), "1 "},
		"126 bytes":           {frame(0x81, long[:126]), "1 " + long[:126]},
		"large":               {frame(0x81, long), "1 " + long},
		"in parts":            {frame(0x01, "a") + frame(0x00, "b") + frame(0x80, ""), "1 ab"},
		"a ping within":       {frame(0x01, "a") + frame(0x89, "p") + frame(0x80, "b"), "1 ab pong p"},
		"a pong":              {frame(0x8a, "p") + frame(0x81, "a"), "1 a"},
		"close":               {frame(0x88, "\x03\xe8bye"), "closed with 1000: bye"},
		"close without words": {frame(0x88, ""), "closed with 1000: "},
		"not masked":          {"\x81\x01a", "closed with 1002: frames are masked from clients and from nobody else"},
		"compressed":          {frame(0xc1, "a"), "closed with 1002: a frame has flags of an extension that was not agreed upon"},
		"kind 3":              {frame(0x83, "a"), "closed with 1002: a frame is of an unknown kind"},
		"kind 11":             {frame(0x8b, "a"), "closed with 1002: a frame is of an unknown kind"},
		"a long ping":         {frame(0x89, long[:126]), "closed with 1002: a ping, pong or close is too long or in parts"},
		"a ping in parts":     {frame(0x09, "a"), "closed with 1002: a ping, pong or close is too long or in parts"},
		"nothing begun":       {frame(0x80, "a"), "closed with 1002: a frame continues what was not begun, or begins another message within one"},
		"begun twice":         {frame(0x01, "a") + frame(0x81, "b"), "closed with 1002: a frame continues what was not begun, or begins another message within one"},
		"too large":           {frame(0x81, strings.Repeat("x", 200_001)), "closed with 1009: a message may have at most 200000 bytes"},
		"too large in parts":  {frame(0x01, strings.Repeat("x", 150_000)) + frame(0x80, long), "closed with 1009: a message may have at most 200000 bytes"},
		"a monstrous size":    {"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", "closed with 1009: a message may have at most 200000 bytes"},
		"cut":                 {frame(0x81, "hello")[:7], "unexpected EOF"},
		"nothing":             {"", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			var pongs string
			r := reader{in: bufio.NewReader(strings.NewReader(test.in)), masked: true, limit: 200_000,
				pong: func(p []byte) error { pongs += " pong " + string(p); return nil }}
			kind, message, err := r.next(nil)
			got := fmt.Sprintf("%d %s%s", kind, message, pongs)
			if err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("read as %.100s, want %.100s", got, test.want)
			}
		})
	}
}

func TestFramesAreReadAsWritten(t *testing.T) {
	for _, masked := range []bool{false, true} {
		for _, size := range []int{0, 1, 120, 125, 126, 65_535, 65_536, 100_000} {
			here, there := net.Pipe()
			go func() {
				_ = writeFrame(here, opText, masked, []byte("17 "), bytes.Repeat([]byte("x"), size))
				_ = here.Close()
			}()
			r := reader{in: bufio.NewReader(there), masked: masked, limit: 1 << 20}
			if kind, message, err := r.next(nil); kind != opText || len(message) != 3+size || !strings.HasPrefix(string(message), "17 ") || err != nil {
				t.Errorf("%d bytes: %d, %d bytes, %v", size, kind, len(message), err)
			}
			_ = there.Close()
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(frame(0x01, "a")+frame(0x89, "p")+frame(0x80, "b")+frame(0x88, "\x03\xe8")), true)
	f.Add([]byte("\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x01a"), false)
	f.Fuzz(func(t *testing.T, b []byte, masked bool) {
		const limit = 1 << 16
		r := reader{in: bufio.NewReaderSize(bytes.NewReader(b), 16), masked: masked, limit: limit, pong: func([]byte) error { return nil }}
		for {
			_, message, err := r.next(nil)
			if err != nil {
				var said *closing
				if !errors.As(err, &said) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%v", err)
				}
				return
			}
			if len(message) > limit || len(message) > len(b) {
				t.Errorf("%d bytes of %d", len(message), len(b))
			}
		}
	})
}

func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{`1= {"id":"0"}`, "2+ x", "1.", "3. ", "-1= x", "1= "} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		here, there := net.Pipe()
		defer there.Close()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		s := newSession(&Relay{Log: t.Logf, Busy: func() {}}, here, nil, &head{fields: []string{"GET", "/", ""}}, "S")
		s.open[1] = &request{n: 1}
		s.held = overhead
		err := s.answer(opText, message)
		if _, open := s.open[1]; err != nil && !open {
			t.Errorf("%q is refused and counts as an answer", message)
		}
		if len(s.open) == 0 && s.held != 0 {
			t.Errorf("after %q %d bytes are held", message, s.held)
		}
		_ = here.Close()
	})
}

func FuzzRequestHead(f *testing.F) {
	f.Add([]byte("GET /?frame=100000 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n"))
	f.Add([]byte("GET\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHead(bufio.NewReaderSize(bytes.NewReader(b), 16))
		if err != nil {
			return
		}
		h.frame()
		if h.upgrades() && len(h.acceptance()) == 0 {
			t.Error("no acceptance")
		}
		if asked := string(h.handshake("S")); strings.Count(asked, "\n") != 7 {
			t.Errorf("%q makes of the handshake %q", b, asked)
		}
	})
}
