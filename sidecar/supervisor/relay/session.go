package relay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// smallest and largest bound a client's message, in bytes, whatever it says of the frames that it reads.
	smallest = 4 << 20
	largest  = 16 << 20
	// headRoom is how much longer than a client's frame one of the gateway may be.
	headRoom = 64
	// roomFor is how many bytes of requests may wait for their answers before no more of a client's are read; each counts
	// for at least overhead.
	roomFor  = 8 << 20
	overhead = 128
	// mostAcks is how many answers are acknowledged at a time.
	mostAcks = 256
	// stuckAfter is how long a client may have no room although its gateway is there: then it holds open more barriers and
	// subscriptions than a relay keeps.
	stuckAfter = time.Minute
	// goodbyes is how long a last word may take.
	goodbyes = time.Second
)

// session is one client's connection.
type session struct {
	relay  *Relay
	id     string
	asked  *head
	client net.Conn
	in     *bufio.Reader
	limit  int
	over   chan struct{} // closed when the client has gone

	// writing is held by whoever writes to the client.
	writing sync.Mutex

	// linking is held by whoever writes to the gateway or changes which one that is.
	linking sync.Mutex
	link    *link // nil while there is none

	mu   sync.Mutex
	at   *link // the one that is listened to
	last int64 // the number of the last request
	open map[int64]*request
	held int // bytes of open
	acks []int64
	room chan struct{} // has an element when something was answered
}

// request is one that has not had its last answer yet.
type request struct {
	n    int64
	kind byte
	body []byte
	// got counts the items of a subscription that were delivered.
	got int64
	// on is the link that it was sent on last.
	on *link
}

func (r *request) size() int { return len(r.body) + overhead }

func newSession(r *Relay, client net.Conn, in *bufio.Reader, asked *head, id string) *session {
	return &session{
		relay: r, id: id, asked: asked, client: client, in: in, limit: max(smallest, min(asked.frame(), largest)),
		over: make(chan struct{}), open: make(map[int64]*request), room: make(chan struct{}, 1),
	}
}

// run carries messages until the client leaves, over one link after the other.
func (s *session) run(l *link) error {
	var reading sync.WaitGroup
	reading.Go(s.listen)
	defer reading.Wait()
	defer s.client.Close()
	for {
		err := s.attend(l)
		select {
		case <-s.over:
			return nil
		default:
		}
		var said *closing
		if errors.As(err, &said) && said.code != closeGoingAway && said.code != closeRestart && said.code != closeTryLater {
			s.goodbye(said)
			return fmt.Errorf("the gateway has %w", said)
		}
		if !s.pause(firstPause) {
			return nil
		}
		if l, err = s.reach(s.pause); err != nil {
			var no *refusal
			if !errors.As(err, &no) {
				return nil
			}
			s.goodbye(&closing{closePolicy, no.Error()})
			return no
		}
	}
}

// pause waits, and says whether the client is still there.
func (s *session) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.over:
		return false
	}
}

// listen reads what the client asks for, until it leaves.
func (s *session) listen() {
	defer s.leave()
	in := reader{in: s.in, masked: true, limit: s.limit, pong: func(payload []byte) error { return s.say(opPong, payload) }}
	for {
		kind, body, err := in.next(nil)
		if err == nil {
			err = s.wait(len(body))
		}
		if err != nil {
			var said *closing
			if errors.As(err, &said) {
				s.goodbye(said)
			}
			return
		}
		s.ask(kind, body)
	}
}

// wait waits until there is room for another request.
func (s *session) wait(size int) error {
	var since time.Time
	for {
		s.mu.Lock()
		full := s.held > 0 && s.held+size > roomFor
		s.mu.Unlock()
		if !full {
			return nil
		}
		s.linking.Lock()
		there := s.link != nil
		s.linking.Unlock()
		if !there || since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) > stuckAfter {
			return &closing{closePolicy, fmt.Sprintf("more than %d bytes of requests are open on this connection", roomFor)}
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-s.room:
			since = time.Time{}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// ask passes a request on, or keeps it until there is a gateway.
func (s *session) ask(kind byte, body []byte) {
	s.relay.Busy()
	s.mu.Lock()
	s.last++
	r := &request{n: s.last, kind: kind, body: body}
	s.open[r.n] = r
	s.held += r.size()
	s.mu.Unlock()
	s.linking.Lock()
	defer s.linking.Unlock()
	if s.link != nil && r.on != s.link {
		s.send(s.link, r)
	}
}

// send writes a request to a gateway; whoever reads from it hears when that fails. Callers hold linking.
func (s *session) send(l *link, r *request) {
	r.on = l
	s.mu.Lock()
	got := r.got
	s.mu.Unlock()
	b := strconv.AppendInt(make([]byte, 0, 48), r.n, 10)
	if got > 0 {
		b = strconv.AppendInt(append(b, '@'), got, 10)
	}
	if err := writeFrame(l, r.kind, true, append(s.takeAcks(b), ' '), r.body); err != nil {
		_ = l.Close()
	}
}

// takeAcks appends what is to be acknowledged.
func (s *session) takeAcks(b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.acks), mostAcks)
	for _, ack := range s.acks[:n] {
		b = strconv.AppendInt(append(b, '-'), ack, 10)
	}
	s.acks = slices.Delete(s.acks, 0, n)
	return b
}

// attend asks a gateway for all that is open, makes it the one that is asked from now on, and passes on what it answers
// until it goes away.
func (s *session) attend(l *link) error {
	s.mu.Lock()
	s.at = l
	s.mu.Unlock()
	var asking sync.WaitGroup
	asking.Go(func() { s.resume(l) })
	err := s.answers(l)
	s.linking.Lock()
	if s.link == l {
		s.link = nil
	}
	s.linking.Unlock()
	_ = l.Close()
	asking.Wait()
	return err
}

// resume asks for what is open in the order in which the client did.
func (s *session) resume(l *link) {
	s.linking.Lock()
	defer s.linking.Unlock()
	s.mu.Lock()
	numbers := slices.Sorted(maps.Keys(s.open))
	s.mu.Unlock()
	for _, n := range numbers {
		s.mu.Lock()
		r := s.open[n]
		s.mu.Unlock()
		if r != nil {
			s.send(l, r)
		}
	}
	s.link = l
	select {
	case <-s.over:
		_ = l.Close()
	default:
	}
}

// answers passes on what the gateway says.
func (s *session) answers(l *link) error {
	in := reader{in: l.in, limit: largest + headRoom, pong: func(payload []byte) error {
		s.linking.Lock()
		defer s.linking.Unlock()
		return writeFrame(l, opPong, true, nil, payload)
	}}
	var buf []byte
	for {
		kind, message, err := in.next(buf)
		if err != nil {
			return err
		}
		if err := s.answer(kind, message); err != nil {
			return err
		}
		if buf = message; cap(buf) > step {
			buf = nil
		}
	}
}

var errAnswer = errors.New("the gateway says what is not of this protocol")

// answer passes on one message of the gateway.
func (s *session) answer(kind byte, message []byte) error {
	s.relay.Busy()
	head, reply, found := bytes.Cut(message, []byte{' '})
	if !found || len(head) < 2 {
		return errAnswer
	}
	mark := head[len(head)-1]
	n, err := strconv.ParseInt(string(head[:len(head)-1]), 10, 64)
	if err != nil || mark != '+' && mark != '=' && mark != '.' {
		return errAnswer
	}
	s.mu.Lock()
	r, open := s.open[n]
	s.mu.Unlock()
	if open && len(reply) > 0 {
		if err := s.say(kind, reply); err != nil {
			_ = s.client.Close()
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case mark == '+' && open:
		r.got++
		return nil
	case mark == '=':
		s.acks = append(s.acks, n)
	}
	if open && mark != '+' {
		delete(s.open, n)
		s.held -= r.size()
		select {
		case s.room <- struct{}{}:
		default:
		}
	}
	if len(s.acks) >= mostAcks {
		go s.acknowledge()
	}
	return nil
}

// acknowledge tells the gateway of answers that have arrived although the client asks for nothing more.
func (s *session) acknowledge() {
	if !s.linking.TryLock() {
		return // whoever writes says it
	}
	defer s.linking.Unlock()
	if s.link == nil {
		return
	}
	if b := s.takeAcks(nil); len(b) > 0 {
		if err := writeFrame(s.link, opText, true, append(b, ' '), nil); err != nil {
			_ = s.link.Close()
		}
	}
}

// say writes a frame to the client.
func (s *session) say(kind byte, payload []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return writeFrame(s.client, kind, false, nil, payload)
}

// goodbye closes the client's WebSocket with a word of why.
func (s *session) goodbye(why *closing) {
	_ = s.client.SetWriteDeadline(time.Now().Add(goodbyes))
	_ = s.say(opClose, closeFrame(why))
	_ = s.client.Close()
}

// leave tells the gateway that the client has gone.
func (s *session) leave() {
	close(s.over)
	_ = s.client.Close()
	s.mu.Lock()
	if s.at != nil { // whoever writes to it just now is not to hold this up
		_ = s.at.SetWriteDeadline(time.Now().Add(goodbyes))
	}
	s.mu.Unlock()
	s.linking.Lock()
	defer s.linking.Unlock()
	if s.link == nil {
		return
	}
	for b := s.takeAcks(nil); len(b) > 0; b = s.takeAcks(nil) {
		_ = writeFrame(s.link, opText, true, append(b, ' '), nil)
	}
	_ = writeFrame(s.link, opClose, true, nil, closeFrame(&closing{code: closeNormal}))
	_ = s.link.Close()
}
