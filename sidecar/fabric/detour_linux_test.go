package fabric

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// markAll has every packet between instances take the way through the shaper, but those that come from there.
func markAll(t *testing.T, f *Fabric) {
	t.Helper()
	err := f.InRouter(func() error {
		c := &nftables.Conn{}
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "test"})
		chain := c.AddChain(&nftables.Chain{
			Name: "mark", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
			&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, firstNearIndex)},
			&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, ShaperMark)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		}})
		return c.Flush()
	})
	if err != nil {
		t.Skipf("no nftables: %v", err)
	}
}

// tunnel reads what arrives at the shaper's end and puts it back, and keeps what it saw.
type tunnel struct {
	mu   sync.Mutex
	seen [][]byte
}

func openTunnel(t *testing.T, f *Fabric) *tunnel {
	t.Helper()
	var fd int
	err := f.InShaper(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: f.ShaperEndIndex()}) // ETH_P_ALL, in network order
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	u := &tunnel{}
	link := os.NewFile(uintptr(fd), "shape1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		frame := make([]byte, 70000)
		for {
			n, err := link.Read(frame)
			if err != nil {
				return
			}
			if kind := binary.BigEndian.Uint16(frame[12:]); !bytes.Equal(frame[:6], beyondShape1) || kind != 0x0800 && kind != 0x86dd {
				continue
			}
			u.mu.Lock()
			u.seen = append(u.seen, bytes.Clone(frame[14:n]))
			u.mu.Unlock()
			copy(frame, shape0.hardware)
			copy(frame[6:], shape1.hardware)
			_, _ = link.Write(frame[:n])
		}
	}()
	t.Cleanup(func() { link.Close(); <-done })
	return u
}

// faults says what is wrong with the packets that were seen: on this way they have to be as they would be on a wire.
func (u *tunnel) faults() (packets int, faults []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.seen {
		if len(p) > 1500 {
			faults = append(faults, fmt.Sprintf("%d bytes in one packet", len(p)))
		}
		if sum := transportSum(p); sum != 0xffff {
			faults = append(faults, fmt.Sprintf("checksum off: %#x of % x", sum, p[:48]))
		}
	}
	return len(u.seen), faults
}

// transportSum adds up what the checksum of TCP and UDP covers: 0xffff when that is right.
func transportSum(p []byte) uint16 {
	var pseudo, payload []byte
	if p[0]>>4 == 4 {
		header := int(p[0]&15) * 4
		payload = p[header:binary.BigEndian.Uint16(p[2:])]
		pseudo = append(bytes.Clone(p[12:20]), 0, p[9])
	} else {
		payload = p[40 : 40+int(binary.BigEndian.Uint16(p[4:]))]
		pseudo = append(bytes.Clone(p[8:40]), 0, p[6])
	}
	pseudo = append(binary.BigEndian.AppendUint16(pseudo, uint16(len(payload))), payload...)
	var sum uint32
	for i := 0; i < len(pseudo); i += 2 {
		word := uint32(pseudo[i]) << 8
		if i+1 < len(pseudo) {
			word |= uint32(pseudo[i+1])
		}
		sum += word
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestMarkedPacketsTakeTheDetour(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 3)
		markAll(t, f)
		_, data := f.Addresses(1)
		for _, to := range []netip.Addr{data, f.Address6(1)} {
			tcp, udp := echo(t, f, 1, to)
			// Nobody reads what is marked.
			if err := reach(t, f, 0, "udp", udp); err == nil {
				t.Errorf("%s was reached though nothing shapes", to)
			}
			t.Run(to.String(), func(t *testing.T) {
				u := openTunnel(t, f)
				if err := reach(t, f, 0, "udp", udp); err != nil {
					t.Errorf("by UDP: %v", err)
				}
				upload(t, f, tcp)
				segmented(t, f, udp)
				n, faults := u.faults()
				if n < 200 {
					t.Errorf("only %d packets came by", n)
				}
				if len(faults) > 0 {
					t.Errorf("of %d packets %d were wrong, the first: %s", n, len(faults), faults[0])
				}
			})
		}
	})
}

// upload sends much by TCP, and has it all come back.
func upload(t *testing.T, f *Fabric, to netip.AddrPort) {
	t.Helper()
	c, err := dial(t, f, 0, "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("groundplan"), 30_000)
	go func() { _, _ = c.Write(sent) }()
	back := make([]byte, len(sent))
	if _, err := io.ReadFull(c, back); err != nil || !bytes.Equal(sent, back) {
		t.Errorf("a transfer by TCP: %v", err)
	}
}

// segmented has the kernel cut one datagram into many, as programs with QUIC do.
func segmented(t *testing.T, f *Fabric, to netip.AddrPort) {
	t.Helper()
	c, err := dial(t, f, 0, "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var refused error
	if err := raw.Control(func(fd uintptr) { refused = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) }); err != nil || refused != nil {
		t.Fatal(err, refused)
	}
	if _, err := c.Write(make([]byte, 20_000)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if n, err := c.Read(make([]byte, 2000)); err != nil || n != 1000 {
			t.Fatalf("segment %d: %d bytes, %v", i, n, err)
		}
	}
}

func TestUnmarkedPacketsStayInTheKernel(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 2)
		u := openTunnel(t, f)
		tcp, _ := echo(t, f, 1, f.Address6(1))
		upload(t, f, tcp)
		if n, _ := u.faults(); n != 0 {
			t.Errorf("%d packets took the detour", n)
		}
	})
}
