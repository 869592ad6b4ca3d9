//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/internal/cluster/cgroups"
	"github.com/groundplan/groundplan/internal/cluster/layout"
	"github.com/groundplan/groundplan/internal/cluster/namespaces"
)

func downCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove the cluster and everything that it left on this machine", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			base, err := openBase()
			if err != nil {
				return err
			}
			release, err := base.lock(*name)
			if err != nil {
				return err
			}
			defer release()
			c := &cluster{Cluster: layout.Cluster{Name: *name}, folder: base.folder(*name), began: time.Now()}
			if err := c.clear(); err != nil {
				return err
			}
			c.say("nothing of the cluster %s is left", *name)
			return nil
		},
	}
}

// clear removes what there is of a cluster, however far it came. Names suffice to find it: processes by their control
// group, which they can't leave, namespaces by the files that hold them, the link by its name.
func (c *cluster) clear() error {
	if err := cgroups.Kill(c.Group()); err != nil {
		return fmt.Errorf("ending the cluster's processes: %w", err)
	}
	err := errors.Join(
		namespaces.Clear(c.folder),
		c.unplug(),
		cgroups.Remove(c.Group()),
	)
	if err != nil {
		return err // a folder in which something may be mounted is left alone
	}
	if err := os.RemoveAll(c.folder); err != nil {
		return fmt.Errorf("removing the cluster's folder: %w", err)
	}
	return nil
}
