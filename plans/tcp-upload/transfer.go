package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// A transfer is the number of bytes in eight bytes, the bytes, and the receiver's receipt in JSON on the way back.

// receipt is what a receiver says about a transfer.
type receipt struct {
	Bytes int64
	Sum   [sha256.Size]byte
	// Steady is the rate in bits per second at which the last three quarters came: when TCP has found the rate of the link.
	Steady float64
}

// sent is what a sender knows about a transfer.
type sent struct {
	receipt
	connect time.Duration // until the connection stood
	took    time.Duration // from the first byte until the receipt
}

// content is what is sent: the same bytes for the same seed.
func content(seed uint64, size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8(sha256.Sum256(binary.BigEndian.AppendUint64(nil, seed))), size)
}

// upload sends size bytes, and holds the receipt against them.
func upload(ctx context.Context, to netip.AddrPort, seed uint64, size int64) (sent, error) {
	began := time.Now()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return sent{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	s := sent{connect: time.Since(began)}
	began = time.Now()
	sum := sha256.New()
	if _, err := c.Write(binary.BigEndian.AppendUint64(nil, uint64(size))); err != nil {
		return s, fmt.Errorf("sending: %w", err)
	}
	if _, err := io.Copy(c, io.TeeReader(content(seed, size), sum)); err != nil {
		return s, fmt.Errorf("sending: %w", err)
	}
	if err := json.NewDecoder(c).Decode(&s.receipt); err != nil {
		return s, fmt.Errorf("waiting for the receipt: %w", err)
	}
	s.took = time.Since(began)
	switch {
	case s.Bytes != size:
		return s, fmt.Errorf("%d of %d bytes came", s.Bytes, size)
	case s.Sum != [sha256.Size]byte(sum.Sum(nil)):
		return s, fmt.Errorf("%d bytes came, but not those that were sent", size)
	}
	return s, nil
}

// intake takes transfers. Every so often it records at which rate each of them comes, in bits per second.
type intake struct {
	listener net.Listener
	sample   time.Duration
	record   func(rate float64) error
	// failed is told what went wrong.
	failed func(error)
}

// serve takes transfers until the listener is closed. start is how goroutines are started.
func (i *intake) serve(start func(func())) {
	for {
		c, err := i.listener.Accept()
		if err != nil {
			return
		}
		start(func() {
			defer c.Close()
			if err := i.take(c); err != nil {
				i.failed(fmt.Errorf("taking from %s: %w", c.RemoteAddr(), err))
			}
		})
	}
}

// take takes one transfer.
func (i *intake) take(c net.Conn) error {
	var header [8]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		return err
	}
	total := int64(binary.BigEndian.Uint64(header[:]))
	p := &progress{total: total, sum: sha256.New(), began: time.Now(), record: i.record, sample: i.sample}
	p.sampled = p.began
	if _, err := io.CopyN(p, c, total); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", p.bytes, total, err)
	}
	return json.NewEncoder(c).Encode(receipt{Bytes: p.bytes, Sum: [sha256.Size]byte(p.sum.Sum(nil)), Steady: p.steady()})
}

// progress is a transfer under way.
type progress struct {
	total, bytes   int64
	sum            hash.Hash
	began, quarter time.Time // when the first byte was waited for, and when the first quarter had come
	atQuarter      int64
	sample         time.Duration
	sampled        time.Time
	atSample       int64
	record         func(float64) error
}

func (p *progress) Write(b []byte) (int, error) {
	now := time.Now()
	p.sum.Write(b)
	p.bytes += int64(len(b))
	if p.quarter.IsZero() && p.bytes >= p.total/4 {
		p.quarter, p.atQuarter = now, p.bytes
	}
	if since := now.Sub(p.sampled); since >= p.sample {
		rate := 8 * float64(p.bytes-p.atSample) / since.Seconds()
		p.sampled, p.atSample = now, p.bytes
		if err := p.record(rate); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func (p *progress) steady() float64 {
	if p.quarter.IsZero() {
		return 0
	}
	return 8 * float64(p.bytes-p.atQuarter) / max(time.Since(p.quarter).Seconds(), 1e-9)
}
