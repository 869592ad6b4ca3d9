package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/node"
)

// sidecarCheckCommand asks the agent of the node it runs on. The chart's test does, in a pod on the node's network, and so
// can an administrator inside the agent's own pod.
func (a *app) sidecarCheckCommand() *cobra.Command {
	var address, token string
	cmd := &cobra.Command{
		Use: "check", Short: "Ask this node's agent how it stands", Args: args(cobra.NoArgs),
		Long: "Ask the agent of the node on which this runs how it stands. The exit status is 3 when it doesn't answer, or can't shape a\n" +
			"data network there.",
	}
	cmd.Flags().StringVar(&address, "agent", net.JoinHostPort("127.0.0.1", strconv.Itoa(node.Port)), "where the agent listens, `host:port`")
	cmd.Flags().StringVar(&token, "token-file", "", "file with the token that callers have to know")
	form := output(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		known, err := secret("--token-file", token)
		if err != nil {
			return usage(err)
		}
		info, err := askAgent(cmd.Context(), address, known)
		if err != nil {
			return err
		}
		if *form == "json" {
			return a.json(info)
		}
		return describeAgent(a.stdout, info)
	}
	return cmd
}

// askAgent asks the agent at an address for all that it says of itself.
func askAgent(ctx context.Context, address, token string) (node.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	agent := node.Dial(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}, token)
	defer agent.Close()
	info, err := agent.Node(ctx)
	if errors.Is(err, control.ErrAway) {
		return info, fmt.Errorf("no agent answers at %s: is its pod on this node ready?: %w", address, err)
	}
	return info, err
}

// describeAgent tells a person how an agent stands; the error is what keeps instances off its node.
func describeAgent(to io.Writer, info node.Info) error {
	s := info.Shaping
	shaping := "netem, in the kernel"
	if s.Netem != "" {
		shaping = fmt.Sprintf("user space, %v for %v (the kernel has no netem: %s)", s.Achieved.Round(10*time.Microsecond), s.Asked, s.Netem)
	}
	switch {
	case s.Fault != "":
		return fmt.Errorf("there can't be a data network on %s: %s", info.Name, s.Fault)
	case s.Netem != "" && s.UserSpace != "":
		return fmt.Errorf("a data network can't be shaped on %s: by netem: %s; in user space: %s", info.Name, s.Netem, s.UserSpace)
	}
	_, err := fmt.Fprintf(to, "node     %s, at %s\nagent    %s, since %s\nshaping  %s\nruns     %d\n",
		info.Name, info.Address, info.Version, info.Started.Format(time.RFC3339), shaping, len(info.Runs))
	for _, run := range info.Runs {
		if err == nil {
			_, err = fmt.Fprintf(to, "  %s  %s since %s, %d restarts  %s\n", run.ID, run.State, run.Since.Format(time.RFC3339), run.Restarts, run.Fault)
		}
	}
	return err
}
