package gateway

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// plain is a client that costs next to nothing, so that what is measured is the gateway: it writes frames that are made
// beforehand and looks at no more of the replies than their length.
type plain struct {
	conn net.Conn
	in   *bufio.Reader
}

func plainClients(b *testing.B, n int) []*plain {
	return plainClientsAt(b, listenOn(b, open(b, embedded(b), "r")), n, "")
}

// plainClientsAt are clients of a gateway; relays, where the query says so, each with a session of its own.
func plainClientsAt(b *testing.B, url string, n int, query string) []*plain {
	host := strings.TrimPrefix(url, "ws://")
	clients := make([]*plain, n)
	for i := range clients {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		clients[i] = &plain{conn, bufio.NewReaderSize(conn, 1<<16)}
		target := "/"
		if query != "" {
			target = fmt.Sprint("/?client=", i, query, i)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", target, host)
		for line := ""; line != "\r\n"; {
			if line, err = clients[i].in.ReadString('\n'); err != nil {
				b.Fatal(err)
			}
		}
	}
	return clients
}

// send writes one request, masked with zeros.
func (p *plain) send(b *testing.B, request string) {
	frame := []byte{0x81, 0xfe, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(frame[2:], uint16(len(request)))
	if _, err := p.conn.Write(append(frame, request...)); err != nil {
		b.Error(err)
	}
}

// skip reads n replies.
func (p *plain) skip(b *testing.B, n int) {
	for range n {
		head, err := p.in.Peek(4)
		if err != nil {
			b.Error(err)
			return
		}
		size := 2 + int(head[1])
		if head[1] == 126 {
			size = 4 + int(binary.BigEndian.Uint16(head[2:]))
		}
		if _, err := io.CopyN(io.Discard, p.in, int64(size)); err != nil {
			b.Error(err)
			return
		}
	}
}

func everybody(clients []*plain, do func(i int, c *plain)) {
	var work sync.WaitGroup
	for i, c := range clients {
		work.Go(func() { do(i, c) })
	}
	work.Wait()
}

func BenchmarkSignalAndWaitOf1000(b *testing.B) {
	clients := plainClients(b, 1000)
	for n := 0; b.Loop(); n++ {
		everybody(clients, func(_ int, c *plain) {
			c.send(b, fmt.Sprintf(`{"id":"0","is_cancel":false,"signal_entry":{"state":"run:r:plan:p:case:c:states:s%d"}}`, n))
			c.skip(b, 1)
			c.send(b, fmt.Sprintf(`{"id":"1","is_cancel":false,"barrier":{"state":"run:r:plan:p:case:c:states:s%d","target":1000}}`, n))
			c.skip(b, 1)
		})
	}
}

func BenchmarkPublishToDelivery(b *testing.B) {
	clients := plainClients(b, 2)
	clients[0].send(b, `{"id":"0","subscribe":{"topic":"t"}}`)
	for b.Loop() {
		clients[1].send(b, `{"id":"1","is_cancel":false,"publish":{"topic":"t","payload":"item"}}`)
		clients[0].skip(b, 1)
		clients[1].skip(b, 1)
	}
}

func BenchmarkAllToAllOf1000(b *testing.B) {
	clients := plainClients(b, 1000)
	for n := 0; b.Loop(); n++ {
		everybody(clients, func(i int, c *plain) {
			c.send(b, fmt.Sprintf(`{"id":"%d","is_cancel":false,"publish":{"topic":"t%d","payload":"client %d"}}`, 2*n, n, i))
			c.skip(b, 1)
			c.send(b, fmt.Sprintf(`{"id":"%d","is_cancel":false,"subscribe":{"topic":"t%d"}}`, 2*n+1, n))
			c.skip(b, len(clients))
		})
	}
}
