//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/internal/cluster/cgroups"
	"github.com/groundplan/groundplan/internal/cluster/layout"
)

const faultArguments = "(etcd|apiserver|controller-manager|scheduler|registry|redis|kwok|kubelet NODE|containerd NODE|node NODE)"

func killCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "kill " + faultArguments, Short: "Kill a server, or all processes of a node, as a crash would", Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, what []string) error {
			return withCluster(*name, func(c *cluster) error { return c.kill(what) })
		},
	}
}

func startCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "start " + faultArguments, Short: "Start again what was killed, and wait until it is ready", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, what []string) error {
			return withCluster(*name, func(c *cluster) error {
				names, _, err := c.named(what)
				if err != nil {
					return err
				}
				for _, name := range names {
					s, err := c.servers().Known(name)
					if err != nil {
						return err
					}
					if err := c.start(cmd.Context(), s); err != nil {
						return err
					}
					c.say("%s is ready", name)
				}
				return nil
			})
		},
	}
}

func (c *cluster) kill(what []string) error {
	names, machine, err := c.named(what)
	if err != nil {
		return err
	}
	// The kubelet first: it would mourn what goes before it.
	for _, name := range slices.Backward(names) {
		if _, err := c.servers().Known(name); err != nil {
			return err
		}
		if err := c.servers().Kill(name); err != nil {
			return err
		}
		c.say("%s is killed", name)
	}
	if !machine {
		return nil
	}
	groups := []string{c.Group() + "/" + what[1]}
	for _, name := range names {
		groups = append(groups, c.group(name))
	}
	var failed []error
	for _, group := range groups {
		failed = append(failed, cgroups.Kill(group))
	}
	c.say("every process of %s is gone", what[1])
	return errors.Join(failed...)
}

// named are the servers that a person means, in the order of their start, and whether that is a whole machine.
func (c *cluster) named(what []string) (names []string, machine bool, err error) {
	if len(what) == 1 {
		return what, false, nil
	}
	at := slices.IndexFunc(c.Machines(), func(m layout.Machine) bool { return m.Name == what[1] })
	if at < 0 {
		return nil, false, fmt.Errorf("the cluster %s has no node %s: they are called node-1 to node-%d", c.Name, what[1], c.Nodes)
	}
	m := c.Machines()[at]
	switch what[0] {
	case layout.Kubelet, layout.Containerd:
		return []string{m.On(what[0])}, false, nil
	case "node":
		return []string{m.On(layout.Containerd), m.On(layout.Kubelet)}, true, nil
	}
	return nil, false, fmt.Errorf("a node has no server %s: say %s, %s or node", what[0], layout.Kubelet, layout.Containerd)
}
