//go:build linux

package keeper

import (
	"slices"
	"sync"

	"github.com/groundplan/groundplan/sidecar/control"
)

// probing is how far the proof of the data network has got.
type probing struct {
	mu          sync.Mutex
	done, total int
}

func (p *probing) set(done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
}

func (p *probing) get() (done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done, p.total
}

// inBrief is what a reply says of a proof: the pairs outside the tolerance first, and no more than fit.
func inBrief(proof control.Proof) control.NetworkReply {
	reply := control.NetworkReply{Pairs: len(proof.Pairs)}
	brief := proof
	brief.Pairs = slices.Clone(proof.Pairs)
	slices.SortStableFunc(brief.Pairs, func(a, b control.Pair) int { return order(a) - order(b) })
	for _, pair := range brief.Pairs {
		reply.Faults += 1 - order(pair)
	}
	brief.Pairs = brief.Pairs[:min(len(brief.Pairs), control.MostPairs)]
	reply.Proof = &brief
	return reply
}

func order(pair control.Pair) int {
	if pair.OK {
		return 1
	}
	return 0
}
