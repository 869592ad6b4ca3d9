package kubernetes

import (
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// other is an architecture that this machine hasn't.
func other() string {
	if runtime.GOARCH == "arm64" {
		return "amd64"
	}
	return "arm64"
}

func TestArchitecture(t *testing.T) {
	type node struct {
		says, label, system string
		labels              map[string]string
		taint               bool
	}
	for name, c := range map[string]struct {
		nodes     []node
		selector  map[string]string
		want, why string
	}{
		"of this machine":      {nodes: []node{{says: runtime.GOARCH}, {says: runtime.GOARCH}}},
		"of another":           {nodes: []node{{says: other()}, {label: other()}}, want: other()},
		"nobody says":          {nodes: []node{{}, {}}},
		"some don't say":       {nodes: []node{{}, {says: other()}}, want: other()},
		"several":              {nodes: []node{{says: "arm64"}, {says: "amd64"}, {says: "amd64"}}, why: "of several architectures (2 amd64, 1 arm64), and what a run builds is for one: choose it by --kube-node-selector kubernetes.io/arch=amd64"},
		"several, one chosen":  {nodes: []node{{says: runtime.GOARCH}, {says: other(), labels: map[string]string{"pool": "x"}}}, selector: map[string]string{"pool": "x"}, want: other()},
		"several, one tainted": {nodes: []node{{says: runtime.GOARCH, taint: true}, {says: other()}}, want: other()},
		"another system":       {nodes: []node{{says: runtime.GOARCH, system: "windows"}, {says: other(), system: "linux"}}, want: other()},
		"no nodes":             {},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 0, 1)
			b.ground.options.NodeSelector = c.selector
			for i, n := range c.nodes {
				made := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: string(rune('a' + i)), Labels: map[string]string{}}}
				for key, value := range n.labels {
					made.Labels[key] = value
				}
				made.Labels[corev1.LabelArchStable] = n.label
				made.Status.NodeInfo.Architecture, made.Status.NodeInfo.OperatingSystem = n.says, n.system
				if n.taint {
					made.Spec.Taints = []corev1.Taint{{Key: "control", Effect: corev1.TaintEffectNoSchedule}}
				}
				if _, err := b.client.CoreV1().Nodes().Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			got, why, err := b.ground.Architecture(t.Context(), b.in.Run)
			if err != nil || got != c.want || !strings.HasSuffix(why, c.why) || (why == "") != (c.why == "") {
				t.Errorf("%q, %q, %v; want %q, %q", got, why, err, c.want, c.why)
			}
		})
	}
}
