package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/groundplan/groundplan/sidecar/gateway"
	syncservice "github.com/testground/sync-service"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// The servers that take turns.
const (
	reference     = "sync-service"
	gatewayServer = "gateway"
)

const port = 5050

// start runs one server in a process of its own and waits until it answers. What stop gives is the processor time that
// the server used, in milliseconds.
func start(role string) (stop func() float64, err error) {
	cmd := exec.Command("/proc/self/exe", "-role", role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	stop = func() float64 {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed: that is its status
		return milliseconds(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())
	}
	for range 500 {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return stop, conn.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	return nil, fmt.Errorf("%s does not answer", role)
}

func serve(role string) error {
	if role == reference {
		return serveReference()
	}
	return serveGateway()
}

func serveReference() error {
	service, err := syncservice.NewDefaultService(context.Background(), zap.NewNop().Sugar())
	if err != nil {
		return fmt.Errorf("making the reference service: %w", err)
	}
	server, err := syncservice.NewServer(service, port)
	if err != nil {
		return fmt.Errorf("making the reference server: %w", err)
	}
	return server.Serve()
}

func serveGateway() error {
	client, stop, err := gateway.Embedded()
	if err != nil {
		return fmt.Errorf("starting the embedded Redis: %w", err)
	}
	defer func() { _ = stop() }()
	g, err := gateway.New(gateway.Options{Redis: client, Run: "bench", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("starting the gateway: %w", err)
	}
	defer g.Close()
	space := g.Space("bench")
	handler := g.Handler(func(netip.AddrPort) (gateway.Client, bool) {
		return gateway.Client{Name: "bench", Space: space}, true
	})
	return http.ListenAndServe("127.0.0.1:"+strconv.Itoa(port), handler)
}
