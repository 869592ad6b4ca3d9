package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/coder/websocket"
)

// Client is who has connected, and to what.
type Client struct {
	Name  string // told to Observe
	Space *Space
}

// Handler serves clients over WebSockets. Each connection is asked of who, by the address that it comes from: not ok is
// refused with 403.
//
// A client that reads frames of more than 32,767 bytes says so by connecting to /?frame=BYTES, up to 16 MiB. What it
// publishes may be larger then, and subscribers that didn't say so get an error in its place. Relays connect to
// /?relay=SESSION (see relay.go).
//
// It also answers as an InfluxDB that keeps nothing: Testground's SDK for Rust doesn't start without the address of one, and
// a plan that writes to it fails where nobody answers.
func (g *Gateway) Handler(who func(remote netip.AddrPort) (client Client, ok bool)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remote, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero value where it isn't one: who decides
		client, ok := who(netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()))
		if !ok {
			http.Error(w, "this address belongs to no instance of the run", http.StatusForbidden)
			return
		}
		if drop(w, r) {
			return
		}
		frame, err := frameLimit(r.FormValue("frame"))
		session := r.FormValue("relay")
		if err = errors.Join(err, checkSession(session)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		corked := &corking{ResponseWriter: w}
		// Origins don't matter: who is asked by address, and pages of browsers have none here.
		ws, err := websocket.Accept(corked, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			g.log.Debug("a connection to the sync gateway is no WebSocket", "client", client.Name, "error", err)
			return
		}
		if session != "" {
			session = client.Name + " " + session // nobody asks in another's name
		}
		g.serve(ws, corked.cork, client, frame, session)
	})
}

// largestWrite bounds what is read of metrics in one request, in bytes, to be dropped.
const largestWrite = 64 << 20

// drop answers what is asked of an InfluxDB: metrics travel by the outputs, so that what is written here is read and dropped.
// False when something else is asked.
func drop(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path {
	case "/ping", "/write", "/api/v2/write":
		_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, largestWrite)) // who goes away while writing has lost nothing
		w.Header().Set("X-Influxdb-Version", "groundplan")
		w.WriteHeader(http.StatusNoContent)
	case "/query":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"results":[]}`)
	default:
		return false
	}
	return true
}

// frameLimit reads what a client said of the frames it reads.
func frameLimit(value string) (int, error) {
	if value == "" {
		return plainFrame, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < plainFrame {
		return 0, fmt.Errorf("frame=%s: a number of bytes from %d on is needed", value, plainFrame)
	}
	return min(n, largestFrame), nil
}
