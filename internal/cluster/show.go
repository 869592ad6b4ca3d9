//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/internal/cluster/cgroups"
	"github.com/groundplan/groundplan/internal/cluster/registry"
	"github.com/groundplan/groundplan/internal/cluster/running"
)

func environmentCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: "Print what a shell should export to work with the cluster", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			base, err := openBase()
			if err != nil {
				return err
			}
			c, err := base.load(*name)
			if err != nil {
				return err
			}
			return c.printEnvironment(cmd.OutOrStdout())
		},
	}
}

func (c *cluster) printEnvironment(w io.Writer) error {
	var b strings.Builder
	for _, variable := range [][2]string{
		{"KUBECONFIG", c.kubeconfig()},
		{running.Name, c.Name},
		{running.Kubeconfig, c.kubeconfig()},
		{running.Registry, c.Registry().String()},
		{running.Redis, c.redisURL()},
		{running.Program, c.Places.Program},
	} {
		if variable[1] != "" {
			fmt.Fprintf(&b, "export %s=%s\n", variable[0], quote(variable[1]))
		}
	}
	fmt.Fprintf(&b, "export PATH=%s:$PATH\n", quote(c.Places.Kubernetes))
	_, err := io.WriteString(w, b.String())
	return err
}

// redisURL is how nodes reach Redis; a cluster without nodes has none. The user is named: redis-cli would else say that it
// is called nothing.
func (c *cluster) redisURL() string {
	if c.Nodes == 0 {
		return ""
	}
	return fmt.Sprintf("redis://default:%s@%s/0", c.Password, c.Redis())
}

// quote makes one word of a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func statusCommand(name *string) *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show the servers, the processor time that each used, and the nodes", Args: cobra.NoArgs}
	during := cmd.Flags().Duration("during", 0, "show what part of a processor each uses during that time")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		base, err := openBase()
		if err != nil {
			return err
		}
		c, err := base.load(*name)
		if err != nil {
			return err
		}
		return errors.Join(c.printServers(cmd.Context(), cmd.OutOrStdout(), *during), c.printNodes(cmd.Context(), cmd.OutOrStdout()))
	}
	return cmd
}

func (c *cluster) printServers(ctx context.Context, w io.Writer, during time.Duration) error {
	names, err := c.servers().Names()
	if err != nil {
		return err
	}
	before := c.used(names)
	select {
	case <-time.After(during):
	case <-ctx.Done():
		return ctx.Err()
	}
	after := c.used(names)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range names {
		state := "has ended"
		if process, alive := c.servers().Alive(name); alive {
			state = fmt.Sprintf("process %d", process)
		}
		use := fmt.Sprintf("%.1f s", after[name].Seconds())
		if during > 0 {
			use = fmt.Sprintf("%.1f%%", 100*(after[name]-before[name]).Seconds()/during.Seconds())
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, state, use, c.servers().Log(name))
	}
	return table.Flush()
}

// used is the processor time that servers used, with their children.
func (c *cluster) used(names []string) map[string]time.Duration {
	used := map[string]time.Duration{}
	for _, name := range names {
		if d, err := cgroups.Used(c.group(name)); err == nil { // one that never came so far used none
			used[name] = d
		}
	}
	return used
}

func (c *cluster) printNodes(ctx context.Context, w io.Writer) error {
	a, err := c.api()
	if err != nil {
		return err
	}
	if c.Fake > 0 {
		return nil // hundreds of the same
	}
	nodes, err := a.nodes(ctx)
	if err != nil {
		return err
	}
	for _, m := range c.Machines() {
		ready, why := nodes[m.Name].ready()
		fmt.Fprintf(w, "%s  ready: %v (%s)\n", m.Name, ready, why)
	}
	return nil
}

func loadCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "load ARCHIVE NAME[:TAG]", Short: "Bring an image, an archive as `docker save` writes it, into the registry", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			base, err := openBase()
			if err != nil {
				return err
			}
			c, err := base.load(*name)
			if err != nil {
				return err
			}
			image, err := registry.Load(arguments[0])
			if err != nil {
				return err
			}
			pushed, err := registry.Push(cmd.Context(), image, c.Registry().String()+"/"+arguments[1])
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), pushed)
			}
			return err
		},
	}
}

func registryCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "registry", Short: "Serve the registry", Hidden: true, Args: cobra.NoArgs}
	listen := cmd.Flags().String("listen", "", "the address to listen on")
	folder := cmd.Flags().String("folder", "", "the folder to keep images in")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := registry.Open(*folder)
		if err != nil {
			return err
		}
		server := &http.Server{Addr: *listen, Handler: r, ReadHeaderTimeout: 10 * time.Second}
		fmt.Fprintf(os.Stderr, "serving %s on %s\n", *folder, *listen)
		go func() {
			<-cmd.Context().Done()
			_ = server.Close()
		}()
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return r.Close()
	}
	return cmd
}
