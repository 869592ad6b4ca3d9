// Gateway measures the sync service as a large cluster uses it: 10,000 clients on 100 simulated nodes, each with a
// gateway of its own, and one redis-server for all. The gateways are in one process, the clients in another, Redis in a
// third, so that what each costs can be told; all share this machine, where a real node has processors of its own.
//
//	go run ./gateway -clients 10000 -nodes 100 -rounds 5
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type options struct {
	role    string
	clients int
	nodes   int
	rounds  int
	timeout time.Duration
	redis   string
	folder  string
	profile string
}

var o options

func main() {
	flag.StringVar(&o.role, "role", "", "internal: nodes")
	flag.IntVar(&o.clients, "clients", 10000, "number of clients")
	flag.IntVar(&o.nodes, "nodes", 100, "number of simulated nodes: gateways")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each measurement")
	flag.DurationVar(&o.timeout, "timeout", time.Minute, "bound on one round")
	flag.StringVar(&o.redis, "redis", "", "internal: the socket of Redis")
	flag.StringVar(&o.folder, "folder", "", "internal: where sockets are")
	flag.StringVar(&o.profile, "profile", "", "write a profile of the gateways' processor time to this file")
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench gateway:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := enoughFiles(o.clients + 4*o.nodes + 64); err != nil {
		return err
	}
	if o.role == "nodes" {
		return serveNodes(o.nodes, o.redis, o.folder)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	folder, err := os.MkdirTemp("", "bench-gateway-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	return measure(ctx, folder)
}

// enoughFiles raises the bound on open files, or says that it is too low.
func enoughFiles(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("reading the limit on open files: %w", err)
	}
	if limit.Max < uint64(n) {
		return fmt.Errorf("%d open files are needed and %d are allowed (raise it: ulimit -n %d)", n, limit.Max, n)
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raising the limit on open files: %w", err)
	}
	return nil
}

// profile writes a processor profile from now until what it returns is called, where one was asked for.
func profile() func() {
	if o.profile == "" {
		return func() {}
	}
	file, err := os.Create(o.profile)
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench gateway: no profile:", err)
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close()
	}
}
