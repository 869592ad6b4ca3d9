package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/groundplan/groundplan/activities/stage"
)

// Architecture is that of the nodes which instances of a run may go to, as Go names it; empty: this machine's. A cluster
// that can't be asked is taken to be like this machine: placing says what is wrong with it. The string says that the nodes
// are of several kinds.
func (g *Ground) Architecture(ctx context.Context, run stage.Run) (architecture, why string, err error) {
	c, err := g.cluster(run)
	var none *clusterFault
	if errors.As(err, &none) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	nodes, err := patiently(ctx, func() (*corev1.NodeList, error) {
		return c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	})
	if refusal(err) != "" {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("looking at the nodes: %w", err)
	}
	kinds := map[string]int{}
	for i := range nodes.Items {
		n := &nodes.Items[i]
		if selected(n, g.options.NodeSelector) && repelling(n, g.options.Tolerations) == "" && isLinux(n) {
			kinds[architectureOf(n)]++
		}
	}
	delete(kinds, "") // whoever doesn't say so may be anything
	names := slices.Sorted(maps.Keys(kinds))
	switch {
	case len(names) == 0, len(names) == 1 && names[0] == runtime.GOARCH:
		return "", "", nil
	case len(names) == 1:
		return names[0], "", nil
	}
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%d %s", kinds[name], name))
	}
	return "", fmt.Sprintf("the nodes for instances on %s are of several architectures (%s), and what a run builds is for one: choose it by --kube-node-selector %s=%s",
		c.name, joined(parts), corev1.LabelArchStable, names[0]), nil
}

// architectureOf is what a node's kubelet says that it is, or its label; empty where neither does.
func architectureOf(n *corev1.Node) string {
	return first(n.Status.NodeInfo.Architecture, n.Labels[corev1.LabelArchStable])
}

func isLinux(n *corev1.Node) bool {
	system := first(n.Status.NodeInfo.OperatingSystem, n.Labels[corev1.LabelOSStable])
	return system == "" || system == string(corev1.Linux)
}
