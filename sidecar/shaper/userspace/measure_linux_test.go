package userspace

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
)

// Benchmarks of the whole way, from an instance to another. Each runs in a sidecar, which prints its figures: run them as
//
//	go test -run '^$' -bench Way -benchtime 3x ./sidecar/shaper/userspace

// figures is what a measurement has found, by unit.
type figures map[string]float64

// inSidecar has measure done in a sidecar, and reports the median of each figure.
func inSidecar(b *testing.B, measure func(b *testing.B) figures) {
	b.Helper()
	if launchtest.Inside() {
		for unit, v := range measure(b) {
			fmt.Println("figure", unit, v)
		}
		b.SkipNow() // the figures are for the one outside
	}
	if err := launch.Supported(); err != nil {
		b.Skip(err)
	}
	all := make(map[string][]float64)
	for b.Loop() {
		cmd := exec.Command("/proc/self/exe", "-test.run=^$", "-test.bench=^"+b.Name()+"$", "-test.benchtime=1x")
		cmd.Env = launchtest.StarterEnvironment()
		said, err := cmd.CombinedOutput()
		if err != nil {
			b.Fatalf("%v\n%s", err, said)
		}
		for line := range strings.Lines(string(said)) {
			if words := strings.Fields(line); len(words) == 3 && words[0] == "figure" {
				v, err := strconv.ParseFloat(words[2], 64)
				if err != nil {
					b.Fatal(err)
				}
				all[words[1]] = append(all[words[1]], v)
			}
		}
		if len(all) == 0 {
			b.Fatalf("no figures:\n%s", said)
		}
	}
	for unit, values := range all {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], unit)
	}
	b.ReportMetric(0, "ns/op")
}

// echo serves UDP and TCP in a slot.
func (r *rig) echo(b testing.TB, slot int) (udp, tcp net.Addr) {
	b.Helper()
	at := r.seats.Instances[slot].Data
	var packets *net.UDPConn
	var stream net.Listener
	err := r.fabric.Inside(slot, func() (err error) {
		if packets, err = net.ListenUDP("udp", &net.UDPAddr{IP: at.AsSlice()}); err != nil {
			return err
		}
		stream, err = net.Listen("tcp", net.JoinHostPort(at.String(), "0"))
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { packets.Close(); stream.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := packets.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteToUDPAddrPort(buffer[:n], from)
		}
	}()
	go func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			go func() { n, _ := io.Copy(io.Discard, c); fmt.Fprintln(c, n); c.Close() }()
		}
	}()
	return packets.LocalAddr(), stream.Addr()
}

func (r *rig) dial(b testing.TB, slot int, to net.Addr) (c net.Conn) {
	b.Helper()
	err := r.fabric.Inside(slot, func() (err error) { c, err = net.DialTimeout(to.Network(), to.String(), 5*time.Second); return err })
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

func quantile(sorted []time.Duration, q float64) float64 {
	return float64(sorted[int(q*float64(len(sorted)-1))]) / 1e3
}

// pinger sends ICMP echo requests from a slot. The kernel at the other end answers them, and that at this end says when
// the answers arrived, so that no program's waking up is part of the figures.
type pinger struct {
	connection *net.IPConn
	took       []time.Duration
}

func (r *rig) pinger(b testing.TB, slot int) *pinger {
	b.Helper()
	p := &pinger{}
	if err := r.fabric.Inside(slot, func() (err error) {
		p.connection, err = net.ListenIP("ip4:icmp", &net.IPAddr{IP: r.seats.Instances[slot].Data.AsSlice()})
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.connection.Close() })
	raw, err := p.connection.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) }); err != nil {
		b.Fatal(err)
	}
	return p
}

// ping sends n requests, each with the time at which it was sent.
func (p *pinger) ping(to net.IP, n int, interval time.Duration) {
	for i := range n {
		m := []byte{8, 0, 0, 0, 0x67, 0x70, byte(i >> 8), byte(i)}
		m = binary.BigEndian.AppendUint64(m, uint64(time.Now().UnixNano()))
		var sum uint32
		for i := 0; i < len(m); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(m[i:]))
		}
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(m[2:], ^uint16(sum>>16+sum))
		_, _ = p.connection.WriteToIP(m, &net.IPAddr{IP: to})
		time.Sleep(interval)
	}
}

// listen takes answers until there are n, or none for a second.
func (p *pinger) listen(n int) {
	buffer, notes := make([]byte, 256), make([]byte, 256)
	for len(p.took) < n {
		_ = p.connection.SetReadDeadline(time.Now().Add(time.Second))
		size, noted, _, _, err := p.connection.ReadMsgIP(buffer, notes)
		if err != nil {
			return
		}
		message := buffer[int(buffer[0]&15)*4 : size] // behind the IP header
		if len(message) < 16 || message[0] != 0 {
			continue // a request to this instance
		}
		parsed, err := unix.ParseSocketControlMessage(notes[:noted])
		if err != nil || len(parsed) == 0 {
			continue
		}
		sec, nsec := binary.NativeEndian.Uint64(parsed[0].Data), binary.NativeEndian.Uint64(parsed[0].Data[8:])
		p.took = append(p.took, time.Duration(sec*1e9+nsec-binary.BigEndian.Uint64(message[8:])))
	}
}

// BenchmarkWayRoundTrips: 50 instances at 10 ms, each sends 50 packets a second to another one, which echoes them.
func BenchmarkWayRoundTrips(b *testing.B) {
	inSidecar(b, func(b *testing.B) figures {
		const n, pings = 50, 100
		r := newRig(b, n, Options{})
		latency := pipelines.Duration(10 * time.Millisecond)
		r.ask(b, everywhere(pipelines.Shape{Latency: &latency}))
		pingers := make([]*pinger, n)
		var wg sync.WaitGroup
		for i := range n {
			p := r.pinger(b, i)
			pingers[i] = p
			wg.Go(func() { p.listen(pings) })
		}
		for i, p := range pingers {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 400 * time.Microsecond)
				p.ping(r.seats.Instances[(i+n/2)%n].Data.AsSlice(), pings, 20*time.Millisecond)
			})
		}
		wg.Wait()
		var all []time.Duration
		for _, p := range pingers {
			for _, took := range p.took {
				all = append(all, took-20*time.Millisecond)
			}
		}
		slices.Sort(all)
		h := r.shaper.Health()
		return figures{
			"µs-p50": quantile(all, .5), "µs-p90": quantile(all, .9), "µs-p99": quantile(all, .99),
			"lost": float64(n*pings-len(all)) + float64(h.Lost), "late": float64(h.Late),
			"µs-CPU/packet": float64(h.CPU.Microseconds()) / float64(h.Packets),
		}
	})
}

// upload sends as much as goes by TCP for a while, and returns the bits a second that got there.
func upload(b testing.TB, c net.Conn, during time.Duration) float64 {
	b.Helper()
	chunk := make([]byte, 64<<10)
	began := time.Now()
	for time.Since(began) < during {
		if _, err := c.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		b.Fatal(err)
	}
	var bytes float64
	if _, err := fmt.Fscanln(bufio.NewReader(c), &bytes); err != nil {
		b.Fatal(err)
	}
	return 8 * bytes / time.Since(began).Seconds()
}

// BenchmarkWayTCP: one connection, with 10 ms each way.
func BenchmarkWayTCP(b *testing.B) {
	inSidecar(b, func(b *testing.B) figures {
		r := newRig(b, 2, Options{})
		latency := pipelines.Duration(10 * time.Millisecond)
		r.ask(b, everywhere(pipelines.Shape{Latency: &latency}))
		_, tcp := r.echo(b, 1)
		rate := upload(b, r.dial(b, 0, tcp), 3*time.Second)
		h := r.shaper.Health()
		return figures{
			"Mbit/s": rate / 1e6, "late": float64(h.Late), "lost": float64(h.Lost),
			"µs-CPU/packet": float64(h.CPU.Microseconds()) / float64(h.Packets),
		}
	})
}

// BenchmarkWayTCP10Mbit: one connection over 10 Mbit/s and 50 ms each way.
func BenchmarkWayTCP10Mbit(b *testing.B) {
	inSidecar(b, func(b *testing.B) figures {
		r := newRig(b, 2, Options{})
		latency, bandwidth := pipelines.Duration(50*time.Millisecond), pipelines.Bandwidth(10e6)
		r.ask(b, everywhere(pipelines.Shape{Latency: &latency, Bandwidth: &bandwidth}))
		_, tcp := r.echo(b, 1)
		return figures{"Mbit/s": upload(b, r.dial(b, 0, tcp), 5*time.Second) / 1e6}
	})
}

// BenchmarkWayPackets: as many packets of 100 bytes as get through at 10 ms, sent by several instances at a rate that
// grows until packets are lost unasked.
func BenchmarkWayPackets(b *testing.B) {
	inSidecar(b, func(b *testing.B) figures {
		r := newRig(b, 8, Options{})
		latency := pipelines.Duration(10 * time.Millisecond)
		r.ask(b, everywhere(pipelines.Shape{Latency: &latency}))
		best := figures{}
		for rate := 10_000; ; rate += 10_000 {
			before := r.shaper.Health()
			sent, received := r.flood(b, rate, time.Second)
			h := r.shaper.Health()
			if received < sent*999/1000 || h.Lost > before.Lost || h.Late-before.Late > (h.Packets-before.Packets)/100 || sent < rate*9/10 {
				b.Logf("at %d/s: %d sent, %d received, %+v", rate, sent, received, h)
				return best
			}
			best = figures{
				"packets/s":     float64(sent),
				"µs-CPU/packet": float64((h.CPU - before.CPU).Microseconds()) / float64(h.Packets-before.Packets),
			}
		}
	})
}

// flood sends packets from the first four slots to the last four at a rate, in all, and counts them.
func (r *rig) flood(b testing.TB, rate int, during time.Duration) (sent, received int) {
	b.Helper()
	var out, in atomic.Int64
	var wg, sinks sync.WaitGroup
	var opened []*net.UDPConn
	for i := range 4 {
		var sink *net.UDPConn
		if err := r.fabric.Inside(i+4, func() (err error) {
			sink, err = net.ListenUDP("udp", &net.UDPAddr{IP: r.seats.Instances[i+4].Data.AsSlice()})
			return errors.Join(err, sink.SetReadBuffer(8<<20))
		}); err != nil {
			b.Fatal(err)
		}
		c := r.dial(b, i, sink.LocalAddr())
		sinks.Go(func() {
			buffer := make([]byte, 2048)
			for {
				if _, err := sink.Read(buffer); err != nil {
					return
				}
				in.Add(1)
			}
		})
		wg.Go(func() {
			buffer := binary.BigEndian.AppendUint64(make([]byte, 64), 0)
			began := time.Now()
			for n := 0; ; n++ {
				at := time.Duration(n) * time.Second * 4 / time.Duration(rate)
				if at > during || time.Since(began) > during {
					return
				}
				if ahead := at - time.Since(began); ahead > time.Millisecond {
					time.Sleep(ahead)
				}
				if _, err := c.Write(buffer); err == nil {
					out.Add(1)
				}
			}
		})
		opened = append(opened, sink)
	}
	wg.Wait()
	time.Sleep(100 * time.Millisecond)
	for _, sink := range opened {
		sink.Close()
	}
	sinks.Wait()
	return int(out.Load()), int(in.Load())
}
