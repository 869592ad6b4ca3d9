//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/groundplan/groundplan/internal/cluster/builds"
	"github.com/groundplan/groundplan/internal/cluster/cgroups"
	"github.com/groundplan/groundplan/internal/cluster/layout"
	"github.com/groundplan/groundplan/internal/cluster/namespaces"
	"github.com/groundplan/groundplan/internal/cluster/pki"
)

// build makes the programs that the cluster is of, unless they are there.
func (c *cluster) build(ctx context.Context) error {
	repository, err := builds.Repository(ctx)
	if err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	b := builds.Builder{
		Modules: filepath.Join(repository, "modules"),
		Cache:   filepath.Join(cache, "groundplan", "cluster"),
		Say:     c.say,
	}
	if c.Places.Kubernetes, err = b.Build(ctx, builds.Kubernetes); err != nil {
		return err
	}
	if c.Places.EtcdBuild, err = b.Build(ctx, builds.Etcd); err != nil {
		return err
	}
	if c.Fake > 0 {
		if c.Places.KwokBuild, err = b.Build(ctx, builds.Kwok); err != nil {
			return err
		}
	}
	if c.Nodes > 0 {
		if err := builds.Program(ctx, repository, "./pause", c.pause()); err != nil {
			return err
		}
	}
	return c.keepProgram()
}

// pause is the program of the image that holds pods' namespaces.
func (c *cluster) pause() string { return c.path("bin", "pause") }

// keepProgram copies this program: `go run` removes the original once it has ended.
func (c *cluster) keepProgram() error {
	c.Places.Program = c.path("bin", "cluster")
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	partial := c.Places.Program + ".partial"
	if err := os.WriteFile(partial, content, 0o755); err != nil {
		return fmt.Errorf("keeping a copy of this program: %w", err)
	}
	return os.Rename(partial, c.Places.Program)
}

// prepare makes the folders of a new cluster and chooses what is left to choose.
func (c *cluster) prepare() error {
	for _, folder := range []string{"bin", "keys", "configs", "servers", "logs", "data/redis", "data/etcd", "machines"} {
		if err := os.MkdirAll(c.path(folder), 0o700); err != nil {
			return err
		}
	}
	block, err := freeBlock(layout.Blocks(c.Name))
	if err != nil {
		return err
	}
	c.Block, c.Password = block, rand.Text()
	c.Places.Keys, c.Places.Configs, c.Places.Data = c.path("keys"), c.path("configs"), c.path("data")
	return c.save()
}

// make makes the machines of a new cluster and all that lies between them.
func (c *cluster) make() error {
	if err := raiseLimits(); err != nil {
		return err
	}
	if err := c.issue(); err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	for file, content := range map[string][]byte{
		"redis.conf": c.RedisConfig(c.Password, c.path("data", layout.Redis)),
		"kwok.yaml":  layout.KwokConfig,
	} {
		if err := os.WriteFile(c.path("configs", file), content, 0o600); err != nil {
			return err
		}
	}
	if err := cgroups.Make(c.group("")); err != nil {
		return err
	}
	if err := c.namespaces().Prepare(); err != nil {
		return err
	}
	for _, machine := range []string{layout.Switch, c.Control().Name} {
		if err := c.namespaces().Make(machine, func() error { return nil }); err != nil {
			return err
		}
	}
	for _, m := range c.Machines() {
		if err := c.makeNode(m); err != nil {
			return err
		}
	}
	if err := c.wire(); err != nil {
		return err
	}
	c.Made = true
	return c.save()
}

// makeNode makes a node's machine. Its files are the host's; what nodes write, and what is mounted into them by others'
// charts, lies at the usual paths, and is each node's own.
func (c *cluster) makeNode(m layout.Machine) error {
	if err := cgroups.Make(c.Group() + "/" + m.Name); err != nil {
		return err
	}
	root := namespaces.Root{
		Folder:  c.path("machines", m.Name),
		Layered: []string{"/etc", "/var"},
		Own:     []string{"/var/lib/kubelet", "/var/lib/containerd", "/var/lib/groundplan", "/var/log"},
		Fresh:   []string{"/run"},
		Files:   c.NodeFiles(m, c.path("keys")),
	}
	return c.namespaces().Make(m.Name, func() error {
		if err := root.Mount(); err != nil {
			return err
		}
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) // of this namespace: between its pods
	})
}

// issue makes all certificates and keys.
func (c *cluster) issue() error {
	keys := c.keys()
	authority, err := keys.Authority("ca")
	if err != nil {
		return err
	}
	if _, err := keys.Authority("front-proxy-ca"); err != nil {
		return err
	}
	if err := keys.KeyPair("service-accounts"); err != nil {
		return err
	}
	for file, subject := range c.subjects() {
		if err := authority.Issue(file, subject); err != nil {
			return err
		}
	}
	users := []string{"admin", "controller-manager", "scheduler"}
	for _, m := range c.Machines() {
		users = append(users, m.Name)
	}
	for _, user := range users {
		if err := keys.Kubeconfig(user, "groundplan-"+c.Name, c.API(), "ca"); err != nil {
			return err
		}
	}
	return nil
}

// subjects are all who have a certificate, by the name of its file.
func (c *cluster) subjects() map[string]pki.Subject {
	administrators := []string{"system:masters"}
	subjects := map[string]pki.Subject{
		"apiserver": {
			Name:      "kube-apiserver",
			Hosts:     []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), c.ControlPlane().Addr(), c.Uplink().Addr(), c.APIService()},
		},
		"kubelet-client":     {Name: "kube-apiserver-kubelet-client", Groups: administrators},
		"admin":              {Name: "admin", Groups: administrators},
		"controller-manager": {Name: "system:kube-controller-manager"},
		"scheduler":          {Name: "system:kube-scheduler"},
	}
	for _, m := range c.Machines() {
		subjects[m.Name] = pki.Subject{
			Name: "system:node:" + m.Name, Groups: []string{"system:nodes"},
			Hosts: []string{m.Name}, Addresses: []netip.Addr{m.Address.Addr()},
		}
	}
	return subjects
}
