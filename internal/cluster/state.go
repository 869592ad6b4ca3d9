//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"github.com/groundplan/groundplan/internal/cluster/layout"
	"github.com/groundplan/groundplan/internal/cluster/namespaces"
	"github.com/groundplan/groundplan/internal/cluster/pki"
	"github.com/groundplan/groundplan/internal/cluster/servers"
)

// base is the folder of all clusters.
type base string

// openBase makes the folder of all clusters: $GROUNDPLAN_CLUSTER, or one in the user's cache.
func openBase() (base, error) {
	folder := os.Getenv("GROUNDPLAN_CLUSTER")
	if folder == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("finding a folder for clusters (set GROUNDPLAN_CLUSTER): %w", err)
		}
		folder = filepath.Join(cache, "groundplan", "cluster", "run")
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	return base(folder), os.MkdirAll(folder, 0o755)
}

// lock keeps others from changing a cluster until it is released.
func (b base) lock(name string) (release func(), err error) {
	if err := layout.CheckName(name); err != nil {
		return nil, err
	}
	path := filepath.Join(string(b), name+".lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		fmt.Fprintf(os.Stderr, "waiting for another command that changes the cluster %s\n", name)
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), file.Close())
		}
	}
	return func() { _ = file.Close() }, nil // which lets go of the lock
}

// cluster is a cluster on this machine.
type cluster struct {
	layout.Cluster
	// Password is that of Redis.
	Password string `json:"password"`
	// Places are where its servers find their files.
	Places layout.Places `json:"places"`
	// Made is set once machines and network stand: what remains is to start servers.
	Made bool `json:"made"`

	folder string
	began  time.Time
}

// folder is that of the cluster of that name.
func (b base) folder(name string) string { return filepath.Join(string(b), name) }

// load reads what is known of a cluster.
func (b base) load(name string) (*cluster, error) {
	c := &cluster{folder: b.folder(name), began: time.Now()}
	text, err := os.ReadFile(c.path("cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no cluster %s: `go run ./internal/cluster up --name %s` makes it: %w", name, name, err)
	}
	if err == nil {
		err = json.Unmarshal(text, c)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is known of the cluster %s: %w", name, err)
	}
	return c, nil
}

func (c *cluster) save() error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("cluster.json.partial"), text, 0o600); err != nil {
		return err
	}
	return os.Rename(c.path("cluster.json.partial"), c.path("cluster.json"))
}

func (c *cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.folder}, elements...)...)
}

func (c *cluster) keys() pki.Folder { return pki.Folder(c.path("keys")) }

func (c *cluster) namespaces() namespaces.Folder { return namespaces.Folder(c.path("namespaces")) }

func (c *cluster) kubeconfig() string { return c.path("keys", "admin.kubeconfig") }

// group is the control group of a server; that of all servers when none is named.
func (c *cluster) group(server string) string { return path.Join(c.Group(), "servers", server) }

func (c *cluster) servers() servers.Folder {
	return servers.Folder{Records: c.path("servers"), Logs: c.path("logs"), Wrap: func(s layout.Server) []string {
		wrapped := []string{c.Places.Program, enterCommand, string(c.namespaces()), s.Machine, c.group(s.Name)}
		return append(wrapped, s.Command...)
	}}
}

// say tells a person how it goes, with the time since the command began.
func (c *cluster) say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "[%6.1fs] %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, arguments...))
}

// stands says whether machines and network are there: after a restart of the host they are not, whatever is recorded.
func (c *cluster) stands() bool {
	machines := append(c.Machines(), c.Control(), layout.Machine{Name: layout.Switch})
	for _, m := range machines {
		if !c.namespaces().Holds(m.Name) {
			return false
		}
	}
	return c.Made
}
