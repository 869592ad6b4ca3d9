// Package running lets a test find the development cluster that its environment names, as `cluster env` prints it.
package running

import (
	"os"
	"testing"
)

// Variables that `cluster env` prints.
const (
	Name       = "GROUNDPLAN_CLUSTER_NAME"
	Kubeconfig = "GROUNDPLAN_CLUSTER_KUBECONFIG"
	Registry   = "GROUNDPLAN_CLUSTER_REGISTRY"
	Redis      = "GROUNDPLAN_CLUSTER_REDIS"
	Program    = "GROUNDPLAN_CLUSTER_PROGRAM"
)

// Cluster is a cluster that runs on this machine.
type Cluster struct {
	Name string
	// Kubeconfig is a file that makes its reader the administrator.
	Kubeconfig string
	// Registry is the address of the registry, for the host and for the nodes: plain HTTP.
	Registry string
	// Redis is the URL of Redis as the nodes reach it.
	Redis string
	// Program is the program that made it: `<Program> --name <Name> kill redis`.
	Program string
}

// Find returns the cluster that the environment names; without one the test is skipped.
func Find(t testing.TB) Cluster {
	t.Helper()
	c := Cluster{
		Name:       os.Getenv(Name),
		Kubeconfig: os.Getenv(Kubeconfig),
		Registry:   os.Getenv(Registry),
		Redis:      os.Getenv(Redis),
		Program:    os.Getenv(Program),
	}
	if c.Kubeconfig == "" {
		t.Skip(`no cluster is named: go tool task cluster:up && eval "$(go run ./internal/cluster env)"`)
	}
	return c
}
