package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/sidecar/network"
	"github.com/groundplan/groundplan/sidecar/node"
)

// agentFlags are what a node's agent is started with. Secrets are in files: everybody on the node can read arguments.
type agentFlags struct {
	listen, name, address, state, kubelet, token, redis string
	idle                                                time.Duration
}

// sidecarNodeCommand is what the chart's DaemonSet starts on each node.
func (a *app) sidecarNodeCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use: "node", Short: "Serve the runs that have instances on this node of a cluster", Args: args(cobra.NoArgs),
		Long: "Serve the runs that have instances on this node of a cluster: the chart's DaemonSet starts it, with the node's\n" +
			"network, its process ids and its state folder. Per run it starts one sidecar, and starts it again when it dies.",
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(node.Port)), "where to answer the worker, `host:port`; on the loopback, behind port-forward")
	flags.StringVar(&f.name, "name", "", "this node's name")
	flags.StringVar(&f.address, "address", "", "this node's address, at which other nodes reach it")
	flags.StringVar(&f.state, "state", "/var/lib/groundplan", "folder for what is to be remembered")
	flags.StringVar(&f.kubelet, "kubelet-root", "/var/lib/kubelet", "the kubelet's root folder")
	flags.StringVar(&f.token, "token-file", "", "file with the token that callers have to know")
	flags.StringVar(&f.redis, "redis-file", "", "file with the URL of the Redis that all nodes share")
	flags.DurationVar(&f.idle, "idle-limit", 0, "how long a run stays that nobody calls about (default 24h)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options, err := f.options()
		if err != nil {
			return usage(err)
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		return serveNode(ctx, f.listen, options)
	}
	return cmd
}

// options reads the flags and the files that they name.
func (f *agentFlags) options() (node.Options, error) {
	o := node.Options{Name: f.name, Kubelet: f.kubelet, IdleLimit: f.idle, Env: nodeEnvironment(os.Environ()), Try: tryShaping, Log: sidecarLog()}
	var err error
	if f.address != "" {
		if o.Address, err = netip.ParseAddr(f.address); err != nil {
			return o, fmt.Errorf("--address: %w", err)
		}
	}
	if o.State, err = filepath.Abs(f.state); err != nil {
		return o, fmt.Errorf("--state: %w", err)
	}
	if o.Token, err = secret("--token-file", f.token); err != nil {
		return o, err
	}
	if o.Redis, err = secret("--redis-file", f.redis); err != nil {
		return o, err
	}
	self, err := os.Executable()
	if err != nil {
		return o, fmt.Errorf("finding this program: %w", err)
	}
	o.Command = []string{self, "sidecar", "run"}
	info, _ := debug.ReadBuildInfo()
	o.Version = describe(info).Version
	return o, nil
}

// secret reads what a file holds, without the space around it.
func secret(flag, path string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("%s is missing", flag)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return "", fmt.Errorf("%s: %s is empty", flag, path)
	}
	return strings.TrimSpace(string(text)), nil
}

// serveNode serves until ctx ends.
func serveNode(ctx context.Context, address string, o node.Options) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return usage(fmt.Errorf("--listen: %w", err))
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return usage(errors.New("--listen: an address of the loopback is needed: whoever reaches the agent can start programs on this node's instances"))
	}
	agent, err := node.New(o)
	if err != nil {
		return usage(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listening for the worker (is another agent on this node?): %w", err)
	}
	return agent.Serve(ctx, l)
}

// tryShaping shapes a small network on this machine.
func tryShaping(ctx context.Context) node.Shaping {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	trial, err := network.Try(ctx)
	if err != nil {
		return node.Shaping{Fault: err.Error()}
	}
	return node.Shaping{Netem: trial.Netem, UserSpace: trial.UserSpace, Asked: trial.Asked, Achieved: trial.Achieved}
}

// nodeEnvironment keeps what sidecars need of the agent's environment.
func nodeEnvironment(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return !slices.Contains([]string{"PATH", "HOME", "TMPDIR", "TZ", "GOTRACEBACK", "GOGC", "GOMEMLIMIT", "GROUNDPLAN_SHAPER"}, name)
	})
}
