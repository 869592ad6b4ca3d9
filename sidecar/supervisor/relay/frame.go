package relay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// The kinds of frames of RFC 6455 that are told apart.
const (
	opContinue = 0
	opText     = 1
	opBinary   = 2
	opClose    = 8
	opPing     = 9
	opPong     = 10
)

// Codes of the closing of a connection.
const (
	closeNormal    = 1000
	closeGoingAway = 1001
	closeProtocol  = 1002
	closePolicy    = 1008
	closeTooBig    = 1009
	closeRestart   = 1012
	closeTryLater  = 1013
)

const (
	// longestControl is the most that a ping, pong or close may hold.
	longestControl = 125
	// step is how much of a message is read before more room is made for it.
	step = 64 << 10
)

// closing is the error of a connection that is to be closed, or was, with a code.
type closing struct {
	code   uint16
	reason string
}

func (c *closing) Error() string { return fmt.Sprintf("closed with %d: %s", c.code, c.reason) }

// reader reads messages of one end of a WebSocket.
type reader struct {
	in *bufio.Reader
	// masked is whether the other end is the client: its frames are masked, and a server's are not.
	masked bool
	limit  int
	// pong answers a ping.
	pong func(payload []byte) error
}

// header is that of a frame.
type header struct {
	op     byte
	final  bool
	size   int
	masked bool
	mask   [4]byte
}

// next reads a whole message into buf, or into a larger one. A closing frame is a *closing error.
func (r *reader) next(buf []byte) (kind byte, message []byte, err error) {
	message = buf[:0]
	for begun := false; ; {
		h, err := r.header()
		if err != nil {
			return 0, nil, err
		}
		if h.op >= opClose {
			if err := r.control(h); err != nil {
				return 0, nil, err
			}
			continue
		}
		if begun != (h.op == opContinue) {
			return 0, nil, &closing{closeProtocol, "a frame continues what was not begun, or begins another message within one"}
		}
		if !begun {
			begun, kind = true, h.op
		}
		if len(message)+h.size > r.limit {
			return 0, nil, &closing{closeTooBig, fmt.Sprintf("a message may have at most %d bytes", r.limit)}
		}
		if message, err = r.payload(message, h); err != nil {
			return 0, nil, err
		}
		if h.final {
			return kind, message, nil
		}
	}
}

func (r *reader) header() (header, error) {
	var b [8]byte
	if _, err := io.ReadFull(r.in, b[:2]); err != nil {
		return header{}, err
	}
	h := header{op: b[0] & 15, final: b[0]&0x80 != 0, masked: b[1]&0x80 != 0}
	size := uint64(b[1] & 0x7f)
	switch {
	case b[0]&0x70 != 0:
		return h, &closing{closeProtocol, "a frame has flags of an extension that was not agreed upon"}
	case h.op > opBinary && h.op < opClose || h.op > opPong:
		return h, &closing{closeProtocol, "a frame is of an unknown kind"}
	case h.masked != r.masked:
		return h, &closing{closeProtocol, "frames are masked from clients and from nobody else"}
	case h.op >= opClose && (!h.final || size > longestControl):
		return h, &closing{closeProtocol, "a ping, pong or close is too long or in parts"}
	}
	var err error
	switch size {
	case 126:
		_, err = io.ReadFull(r.in, b[:2])
		size = uint64(binary.BigEndian.Uint16(b[:2]))
	case 127:
		_, err = io.ReadFull(r.in, b[:8])
		size = binary.BigEndian.Uint64(b[:8])
	}
	if err == nil && h.masked {
		_, err = io.ReadFull(r.in, h.mask[:])
	}
	if err != nil {
		return h, within(err)
	}
	h.size = int(min(size, uint64(r.limit)+1))
	return h, nil
}

// payload appends a frame's payload to message. What a frame only says that it has takes no room.
func (r *reader) payload(message []byte, h header) ([]byte, error) {
	begin := len(message)
	for left := h.size; left > 0; {
		n := min(left, step)
		at := len(message)
		if cap(message)-at < n {
			message = append(make([]byte, 0, max(at+n, min(2*at, begin+h.size))), message...)
		}
		message = message[:at+n]
		if _, err := io.ReadFull(r.in, message[at:]); err != nil {
			return nil, within(err)
		}
		left -= n
	}
	if h.masked {
		for i := begin; i < len(message); i++ {
			message[i] ^= h.mask[(i-begin)&3]
		}
	}
	return message, nil
}

// control handles a ping, pong or close.
func (r *reader) control(h header) error {
	payload, err := r.payload(nil, h)
	switch {
	case err != nil:
		return err
	case h.op == opPing:
		return r.pong(payload)
	case h.op == opPong:
		return nil
	case len(payload) < 2:
		return &closing{code: closeNormal}
	}
	return &closing{code: binary.BigEndian.Uint16(payload), reason: string(payload[2:])}
}

func within(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// writeFrame writes one unfragmented frame whose payload comes in two parts. A client has to mask what it writes; it
// does with zeros, since there is nobody on the way for whom masks are made.
func writeFrame(to net.Conn, op byte, masked bool, head, payload []byte) error {
	var room [14]byte
	b := append(room[:0], 0x80|op)
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	switch size := len(head) + len(payload); {
	case size <= longestControl:
		b = append(b, mask|byte(size))
	case size <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(size))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(size))
	}
	if masked {
		b = append(b, 0, 0, 0, 0)
	}
	parts := net.Buffers{append(b, head...), payload}
	_, err := parts.WriteTo(to)
	return err
}

// closeFrame is the payload of a frame that closes.
func closeFrame(c *closing) []byte {
	b := binary.BigEndian.AppendUint16(nil, c.code)
	return append(b, c.reason[:min(len(c.reason), longestControl-2)]...)
}
