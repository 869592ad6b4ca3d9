package nat

import "time"

// How long mappings stay without packets: the least that the RFCs allow.
const (
	// DefaultTimeout is that of UDP (RFC 4787, REQ-5), where a router doesn't say. Only outgoing packets count.
	DefaultTimeout = 2 * time.Minute
	// queryTimeout is that of ICMP queries (RFC 5508, REQ-2).
	queryTimeout = time.Minute
	// establishedTimeout and transitoryTimeout are those of TCP (RFC 5382, REQ-5): of connections that both sides have
	// acknowledged, and of those that are being opened or have been closed.
	establishedTimeout = 2*time.Hour + 4*time.Minute
	transitoryTimeout  = 4 * time.Minute
)

// mapping is an endpoint outside that stands for one inside.
type mapping struct {
	slot    int
	inside  insideKey
	outside outsideKey
	// sessions are those of the mapping by their remote endpoint. It lives as long as one of them does.
	sessions map[endpoint]*session
	// addresses counts the sessions by their remote address, where the filter asks for that: most packets that nobody has
	// asked for are then told from others without looking at every session.
	addresses map[uint32]int
}

// session is what a mapping has to do with one remote endpoint.
type session struct {
	expires time.Duration
	// What has been seen of TCP, going out [0] and coming in [1].
	acknowledged, finished [2]bool
	reset                  bool
}

// Directions as indices.
const (
	goingOut = iota
	comingIn
)

// session is the one with a remote endpoint, nil when there is none or its time is over.
func (m *mapping) session(remote endpoint, now time.Duration) *session {
	if s := m.sessions[remote]; s != nil && s.expires > now {
		return s
	}
	return nil
}

// live says whether there is a session, and forgets those whose time is over on its way to one.
func (m *mapping) live(now time.Duration) bool {
	_, ok := m.latest(now, func(endpoint) bool { return true })
	return ok
}

// latest finds when a session whose remote endpoint is wanted ends: not the last one of all, but one that hasn't ended.
func (m *mapping) latest(now time.Duration, wanted func(endpoint) bool) (time.Duration, bool) {
	for remote, s := range m.sessions {
		if s.expires <= now {
			m.drop(remote)
		} else if wanted(remote) {
			return s.expires, true
		}
	}
	return 0, false
}

// forget drops a few sessions whose time is over, so that those that nobody asks for anymore don't pile up.
func (m *mapping) forget(now time.Duration) {
	looked := 0
	for remote, s := range m.sessions {
		if s.expires <= now {
			m.drop(remote)
		}
		if looked++; looked == sample {
			return
		}
	}
}

// open makes a session.
func (m *mapping) open(remote endpoint, expires, now time.Duration) *session {
	m.forget(now)
	s := &session{expires: expires}
	if m.addresses != nil && m.sessions[remote] == nil {
		m.addresses[remote.address]++
	}
	m.sessions[remote] = s
	return s
}

// drop forgets a session that is there.
func (m *mapping) drop(remote endpoint) {
	delete(m.sessions, remote)
	if m.addresses == nil {
		return
	}
	if m.addresses[remote.address]--; m.addresses[remote.address] == 0 {
		delete(m.addresses, remote.address)
	}
}

// follow keeps track of a TCP connection by a segment's flags. Every segment counts, in either direction.
func (s *session) follow(flags uint8, direction int, now time.Duration) {
	if flags&flagSYN != 0 && flags&flagACK == 0 && s.closed() {
		*s = session{} // the same endpoints begin anew
	}
	if flags&flagACK != 0 {
		s.acknowledged[direction] = true
	}
	if flags&flagFIN != 0 {
		s.finished[direction] = true
	}
	if flags&flagRST != 0 {
		s.reset = true
	}
	s.expires = now + transitoryTimeout
	if s.acknowledged[goingOut] && s.acknowledged[comingIn] && !s.closed() {
		s.expires = now + establishedTimeout
	}
}

// closed says whether a TCP connection has been reset, or ended from both sides.
func (s *session) closed() bool {
	return s.reset || s.finished[goingOut] && s.finished[comingIn]
}
