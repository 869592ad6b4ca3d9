package userspace

import "math"

// bucketKey names a bucket: what one instance sends by paths of the same row shares its bandwidth.
type bucketKey struct {
	slot int32
	name string
}

// bucket is a bandwidth with the packets that wait for it. It saves nothing up: after a packet of n bits the next one
// goes no earlier than n/rate later, so that there are no bursts. A packet that needn't wait goes at once.
type bucket struct {
	rate int64 // bits per second
	// clock is when the packet sent last has gone through, in nanoseconds.
	clock       int64
	first, last *packet
	waiting     int
	// wake is the time of the bucket's event; never when there is none. Others may still be in the queue: they do nothing.
	wake int64
}

const never = math.MaxInt64

// takes is how long a packet of that many bytes takes.
func takes(bytes int, rate int64) int64 {
	return int64(math.Round(float64(bytes) * 8e9 / float64(rate)))
}

// setRate changes the bandwidth. What is left of the packet that is going through goes by the new one.
func (b *bucket) setRate(rate, now int64) {
	if b.rate != rate && b.clock > now {
		b.clock = now + int64(float64(b.clock-now)*float64(b.rate)/float64(rate))
	}
	b.rate = rate
}

func (b *bucket) push(p *packet) {
	if b.first == nil {
		b.first = p
	} else {
		b.last.next = p
	}
	b.last = p
	b.waiting++
}

func (b *bucket) pop() *packet {
	p := b.first
	b.first, p.next = p.next, nil
	b.waiting--
	return p
}
