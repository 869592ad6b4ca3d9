package fabric

import "github.com/groundplan/groundplan/sidecar/rtnetlink"

// socket speaks rtnetlink with one network namespace. It is not safe for concurrent use.
type socket struct{ *rtnetlink.Socket }

// openSocket opens a socket to the network namespace of the calling thread.
func openSocket() (*socket, error) {
	s, err := rtnetlink.Open()
	if err != nil {
		return nil, err
	}
	return &socket{s}, nil
}

// batch is a series of requests that are sent at once and carried out in order; one that fails doesn't keep the later
// ones from being tried. The answers to more than batchLimit may not fit into the socket.
type batch struct{ rtnetlink.Batch }

const batchLimit = 200

// do carries a batch out and returns what the kernel refused of it.
func (s *socket) do(b *batch) error { return s.Do(&b.Batch) }
