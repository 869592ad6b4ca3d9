package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/node"
)

func TestAskAgent(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer known" {
			http.Error(w, `{"error":"the token is wrong"}`, http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(node.Info{Name: "node-1"})
	}))
	defer web.Close()
	address := web.Listener.Addr().String()
	if info, err := askAgent(t.Context(), address, "known"); err != nil || info.Name != "node-1" {
		t.Errorf("%+v %v", info, err)
	}
	if _, err := askAgent(t.Context(), address, "guessed"); err == nil || !strings.Contains(err.Error(), "the token is wrong") {
		t.Errorf("with a wrong token: %v", err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if _, err := askAgent(t.Context(), closed.Addr().String(), "known"); err == nil || !strings.Contains(err.Error(), "no agent answers at "+closed.Addr().String()) {
		t.Errorf("where nobody listens: %v", err)
	}
}

func TestDescribeAgent(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		name    string
		shaping node.Shaping
		says    string
		fault   string
	}{
		{"netem", node.Shaping{}, "shaping  netem, in the kernel\nruns     1\n  r1  running since 2026-01-02T03:04:05Z, 2 restarts", ""},
		{"user space", node.Shaping{Netem: "unknown qdisc", Asked: 20 * time.Millisecond, Achieved: 20071193},
			"shaping  user space, 20.07ms for 20ms (the kernel has no netem: unknown qdisc)", ""},
		{"neither", node.Shaping{Netem: "unknown qdisc", UserSpace: "no packet sockets"}, "", "by netem: unknown qdisc; in user space: no packet sockets"},
		{"no network", node.Shaping{Fault: "no namespaces"}, "", "there can't be a data network on node-1: no namespaces"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			err := describeAgent(&out, node.Info{
				Name: "node-1", Address: netip.MustParseAddr("192.0.2.1"), Version: "v1", Started: at, Shaping: test.shaping,
				Runs: []node.Run{{ID: "r1", State: node.StateRunning, Since: at, Restarts: 2}},
			})
			if test.fault != "" && (exitStatus(err) != exitInvalid || !strings.Contains(err.Error(), test.fault)) {
				t.Errorf("%v, want %q", err, test.fault)
			}
			if test.fault == "" && (err != nil || !strings.Contains(out.String(), test.says)) {
				t.Errorf("%v: %s, want %q", err, out.String(), test.says)
			}
		})
	}
}
