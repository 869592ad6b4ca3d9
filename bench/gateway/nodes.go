package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/groundplan/groundplan/sidecar/gateway"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"
)

// startRedis runs Debian's redis-server in a folder, without persistence, and waits until it answers on the socket. It
// ends with this process.
func startRedis(folder string) (socket string, process *exec.Cmd, err error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return "", nil, fmt.Errorf("%w (install Debian's package redis-server)", err)
	}
	socket = filepath.Join(folder, "redis.sock")
	process = exec.Command(path, "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "", "--appendonly", "no",
		"--maxclients", "1000", "--logfile", filepath.Join(folder, "redis.log"))
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := process.Start(); err != nil {
		return "", nil, fmt.Errorf("starting redis-server: %w", err)
	}
	for range 500 {
		if c, err := net.Dial("unix", socket); err == nil {
			return socket, process, c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	end(process)
	return "", nil, errors.New("redis-server doesn't answer within 5 s")
}

// end kills a process of ours and gives what it used of the processor.
func end(process *exec.Cmd) time.Duration {
	_ = process.Process.Kill()
	_ = process.Wait() // it was killed: that is its status
	return process.ProcessState.UserTime() + process.ProcessState.SystemTime()
}

// node is one gateway with its own Redis client and socket, as a node of a cluster has it.
type node struct {
	redis   *redis.Client
	gateway *gateway.Gateway
	server  *http.Server
	socket  string
}

// openNodes starts gateways of one run, each with a Redis client of its own as sidecar.Main makes it.
func openNodes(n int, redisSocket, folder string) (nodes []*node, err error) {
	defer func() {
		if err != nil {
			closeNodes(nodes)
			nodes = nil
		}
	}()
	for i := range n {
		one, err := openNode(redisSocket, filepath.Join(folder, fmt.Sprintf("node-%d.sock", i)))
		if err != nil {
			return nodes, fmt.Errorf("opening gateway %d: %w", i, err)
		}
		nodes = append(nodes, one)
	}
	return nodes, nil
}

func openNode(redisSocket, socket string) (*node, error) {
	options, err := redis.ParseURL("unix://" + redisSocket)
	if err != nil {
		return nil, err
	}
	options.ContextTimeoutEnabled, options.PoolSize = true, 1
	o := &node{redis: redis.NewClient(options), socket: socket}
	o.gateway, err = gateway.New(gateway.Options{Redis: o.redis, Run: "bench", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return nil, errors.Join(err, o.redis.Close())
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, errors.Join(err, o.gateway.Close(), o.redis.Close())
	}
	space := o.gateway.Space("bench")
	o.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: o.gateway.Handler(func(netip.AddrPort) (gateway.Client, bool) {
		return gateway.Client{Name: "bench", Space: space}, true
	})}
	go func() { _ = o.server.Serve(listener) }()
	return o, nil
}

func closeNodes(nodes []*node) {
	for _, o := range nodes {
		_ = o.gateway.Close()
		_ = o.server.Close()
		_ = o.redis.Close()
	}
}

func socketsOf(nodes []*node) []string {
	sockets := make([]string, len(nodes))
	for i, o := range nodes {
		sockets[i] = o.socket
	}
	return sockets
}

// serveNodes is the process that holds the gateways: it says their sockets on stdout, one a line, and stays until its
// stdin ends.
func serveNodes(n int, redisSocket, folder string) error {
	nodes, err := openNodes(n, redisSocket, folder)
	if err != nil {
		return err
	}
	defer closeNodes(nodes)
	defer profile()()
	fmt.Println(strings.Join(socketsOf(nodes), "\n"))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// startNodes runs serveNodes in a process of its own, so that what the gateways use can be told from what the clients
// do. Closing stdin ends it.
func startNodes(n int, redisSocket, folder string) (sockets []string, process *exec.Cmd, stdin io.Closer, err error) {
	process = exec.Command("/proc/self/exe", "-role", "nodes", "-nodes", fmt.Sprint(n), "-redis", redisSocket, "-folder", folder,
		"-clients", strconv.Itoa(o.clients), "-profile", o.profile)
	process.Stderr = os.Stderr
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := process.StdinPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	out, err := process.StdoutPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	if err := process.Start(); err != nil {
		return nil, nil, nil, fmt.Errorf("starting the gateways: %w", err)
	}
	lines := bufio.NewScanner(out)
	for len(sockets) < n && lines.Scan() {
		sockets = append(sockets, lines.Text())
	}
	if len(sockets) < n {
		end(process)
		return nil, nil, nil, fmt.Errorf("the process of the gateways has ended after %d of %d", len(sockets), n)
	}
	return sockets, process, in, nil
}

// redisClients is how many connections Redis sees, the one that asks not counted.
func redisClients(ctx context.Context, redisSocket string) (int, error) {
	options, err := redis.ParseURL("unix://" + redisSocket)
	if err != nil {
		return 0, err
	}
	r := redis.NewClient(options)
	defer r.Close()
	list, err := r.ClientList(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("asking Redis for its clients: %w", err)
	}
	return strings.Count(list, "\n") - 1, nil
}

// published is how many times a gateway has published a change, as Redis counts calls.
func published(ctx context.Context, redisSocket string) (int64, error) {
	options, err := redis.ParseURL("unix://" + redisSocket)
	if err != nil {
		return 0, err
	}
	r := redis.NewClient(options)
	defer r.Close()
	stats, err := r.Info(ctx, "commandstats").Result()
	if err != nil {
		return 0, fmt.Errorf("asking Redis for its figures: %w", err)
	}
	_, rest, found := strings.Cut(stats, "cmdstat_publish:calls=")
	if !found {
		return 0, nil
	}
	number, _, _ := strings.Cut(rest, ",")
	return strconv.ParseInt(number, 10, 64)
}
