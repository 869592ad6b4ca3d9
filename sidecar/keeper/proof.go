//go:build linux

package keeper

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

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
	reply.Proof, reply.Summary = &brief, summarise(proof)
	return reply
}

// summarise says how close the pairs came to what is asked of them.
func summarise(proof control.Proof) string {
	if len(proof.Pairs) == 0 {
		return "there are no two instances whose link could be probed"
	}
	var latency time.Duration
	var bandwidth float64
	latencies, bandwidths := 0, 0
	for _, p := range proof.Pairs {
		if p.Achieved.Latency > 0 {
			latencies++
			latency = max(latency, (time.Duration(p.Achieved.Latency) - time.Duration(p.Asked.Latency)).Abs())
		}
		if p.Achieved.Bandwidth > 0 && p.Asked.Bandwidth > 0 {
			bandwidths++
			bandwidth = max(bandwidth, math.Abs(float64(p.Achieved.Bandwidth)/float64(p.Asked.Bandwidth)-1))
		}
	}
	text := plural(len(proof.Pairs), "link between instances was", "links between instances were") + " probed"
	if latencies > 0 {
		text += fmt.Sprintf(": latency within %v of what is asked", latency.Round(10*time.Microsecond))
	}
	if bandwidths > 0 {
		text += fmt.Sprintf(", bandwidth within %.1f %%", 100*bandwidth)
	}
	return text + " (shaped by " + proof.Shaper + ")"
}

func order(pair control.Pair) int {
	if pair.OK {
		return 1
	}
	return 0
}
