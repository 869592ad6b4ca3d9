package kubernetes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/groundplan/groundplan/activities/images"
	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// realCluster is a ground on the cluster of the environment (see docs/cluster-development.md), in a namespace of the
// test's own.
type realCluster struct {
	*testing.T
	options   Options
	client    *kubernetes.Clientset
	namespace string
	in        stage.Input
}

func newCluster(t *testing.T) *realCluster {
	t.Helper()
	config, registry := os.Getenv("GROUNDPLAN_CLUSTER_KUBECONFIG"), os.Getenv("GROUNDPLAN_CLUSTER_REGISTRY")
	if config == "" || registry == "" {
		t.Skip(`no cluster: eval "$(go run ./internal/cluster env)" once one is up, with groundplan's chart on it`)
	}
	t.Setenv("KUBECONFIG", config)
	rest, err := clientcmd.BuildConfigFromFlags("", config)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		t.Fatal(err)
	}
	c := &realCluster{T: t, client: client, namespace: fmt.Sprintf("groundplan-test-%x", time.Now().UnixNano()%0xffffff)}
	_, err = client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: c.namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.CoreV1().Namespaces().Delete(context.Background(), c.namespace, metav1.DeleteOptions{}) // the next test has another
	})
	c.options = Options{Home: runs.Home(t.TempDir()), Namespace: c.namespace, Registry: registry}
	id := strings.ToLower(filepath.Base(t.Name())) + c.namespace[len("groundplan-test"):]
	c.in = stage.Input{Run: stage.Run{ID: id, Ground: "kubernetes"}, Pipeline: "p", Seed: 7, Attempt: 1, Deadline: time.Now().Add(2 * time.Minute),
		Artifacts: map[string]stage.Artifact{"plan": c.image("plan", registry+"/groundplan:dev")}}
	c.in.Groups = []pipelines.Group{{Name: "g", Artifact: "plan", Instances: 3}, {Name: "h", Artifact: "plan", Instances: 2}}
	return c
}

// image is an artifact that exists in the cluster's registry.
func (c *realCluster) image(name, ref string) stage.Artifact {
	c.Helper()
	artifact, why, err := images.Pack(c.Context(), stage.Artifact{Name: name, Image: ref}, images.Options{Registry: c.options.Registry})
	if err != nil || why != "" {
		c.Skipf("%s is not in the cluster's registry (go tool task cluster:install brings it): %s %v", ref, why, err)
	}
	return artifact
}

// schedule is one attempt more to place everything.
func (c *realCluster) schedule() stage.Result {
	c.Helper()
	in := c.in
	c.in.Attempt++
	in.Stage = pipelines.Stage{Name: "place", Kind: pipelines.KindSchedule, Schedule: &pipelines.Schedule{Groups: sidecars.Names(in)}}
	since := time.Now()
	result, err := New(c.options).Schedule(c.Context(), in, func(stage.Progress) {})
	if err != nil {
		c.Fatalf("scheduling: %v", err)
	}
	c.Logf("%v: %s: %s", time.Since(since).Round(time.Millisecond), result.Verdict, result.Reason)
	return result
}

// uids are the run's pods.
func (c *realCluster) uids() map[string]string {
	c.Helper()
	list, err := c.client.CoreV1().Pods(c.namespace).List(c.Context(), metav1.ListOptions{LabelSelector: ofRun(c.in.Run.ID)})
	if err != nil {
		c.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			all[p.Name] = string(p.UID)
		}
	}
	return all
}

// release gives the run back, and looks whether anything is left.
func (c *realCluster) release() {
	c.Helper()
	if err := New(c.options).Release(c.Context(), c.in.Run); err != nil {
		c.Errorf("releasing: %v", err)
	}
	owners, err := c.client.CoreV1().ConfigMaps(c.namespace).List(c.Context(), metav1.ListOptions{LabelSelector: ofRun(c.in.Run.ID)})
	if left := c.uids(); len(left) > 0 || err != nil || len(owners.Items) > 0 {
		c.Errorf("left behind: %v, %v, %v", left, owners, err)
	}
}

// TestClusterRefusals are placements that a real cluster refuses, each in a sentence, soon, and with nothing left behind.
func TestClusterRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(c *realCluster)
		want   string
	}{
		"quota": {func(c *realCluster) {
			_, err := c.client.CoreV1().ResourceQuotas(c.namespace).Create(c.Context(), &corev1.ResourceQuota{
				ObjectMeta: metav1.ObjectMeta{Name: "small"},
				Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"pods": resource.MustParse("3")}},
			}, metav1.CreateOptions{})
			if err != nil {
				c.Fatal(err)
			}
			time.Sleep(2 * time.Second) // until the quota's own controller has looked
		}, "2 too little: raise it"},
		"selector": {func(c *realCluster) { c.options.NodeSelector = map[string]string{"pool": "none"} }, "without pool=none"},
		"image": {func(c *realCluster) {
			c.in.Artifacts["plan"] = stage.Artifact{Name: "plan", Image: c.options.Registry + "/no/such:1", Command: []string{"/x"}}
		}, "5 of 5 instances could not be placed: g/0, g/1, and 3 more: the image"},
		"permission": {func(c *realCluster) { c.impersonate("nobody") }, "for want of the right to create pods"},
		"room":       {func(c *realCluster) { c.in.Groups[0].Memory = 1 << 42 }, "of memory and"},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t)
			c.change(cluster)
			result := cluster.schedule()
			if result.Verdict != stage.Invalid || !strings.Contains(result.Reason, c.want) {
				t.Errorf("%s: %s; want %q", result.Verdict, result.Reason, c.want)
			}
			cluster.release()
		})
	}
}

// TestClusterExamined looks at a real cluster, and at one whose sidecars aren't there.
func TestClusterExamined(t *testing.T) {
	c := newCluster(t)
	text, err := New(c.options).Examine(t.Context())
	if err != nil || !strings.Contains(text, "and a sidecar on each") {
		t.Errorf("%q, %v", text, err)
	}
	c.options.SystemNamespace = c.namespace
	if _, err := New(c.options).Examine(t.Context()); err == nil || !strings.Contains(err.Error(), "install the chart") {
		t.Errorf("got %v", err)
	}
}

// impersonate makes the ground a user without rights.
func (c *realCluster) impersonate(user string) {
	c.Helper()
	config, err := clientcmd.LoadFromFile(os.Getenv("KUBECONFIG"))
	if err != nil {
		c.Fatal(err)
	}
	for _, info := range config.AuthInfos {
		*info = clientcmdapi.AuthInfo{ClientCertificate: info.ClientCertificate, ClientKey: info.ClientKey, ClientCertificateData: info.ClientCertificateData, ClientKeyData: info.ClientKeyData, Token: info.Token, Impersonate: user}
	}
	path := filepath.Join(c.TempDir(), "config")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		c.Fatal(err)
	}
	c.Setenv("KUBECONFIG", path)
}

// TestClusterPlacesAgain has one group's image missing; mended, only that group's pods are made, on a real cluster.
func TestClusterPlacesAgain(t *testing.T) {
	c := newCluster(t)
	good := c.in.Artifacts["plan"]
	c.in.Groups[1].Artifact = "other"
	c.in.Artifacts["other"] = stage.Artifact{Name: "other", Image: c.options.Registry + "/no/such:1", Command: good.Command}
	if result := c.schedule(); result.Verdict != stage.Invalid || !strings.Contains(result.Reason, "2 of 5 instances could not be placed: h/0, h/1: the image") {
		t.Errorf("%s: %s", result.Verdict, result.Reason)
	}
	before := c.uids()
	c.in.Artifacts["other"] = good
	result := c.schedule()
	if result.Verdict != stage.Passed || result.Placed != 2 || result.Kept != 3 {
		t.Errorf("%+v", result)
	}
	after := c.uids()
	if len(before) != 3 || len(after) != 5 {
		t.Errorf("%v, then %v", before, after)
	}
	for name, uid := range before {
		if after[name] != uid {
			t.Errorf("%s was made anew", name)
		}
	}
	c.release()
}
