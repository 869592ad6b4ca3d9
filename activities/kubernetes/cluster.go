package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/groundplan/groundplan/activities/stage"
)

// The namespaces and the rate of calls, where nobody says otherwise.
const (
	DefaultNamespace       = "groundplan"
	DefaultSystemNamespace = "groundplan-system"
	DefaultQPS             = 400
)

// protobuf is a third of JSON's size on the wire, and of its cost.
const protobuf = "application/vnd.kubernetes.protobuf"

// cluster is one cluster, as one user of it.
type cluster struct {
	client kubernetes.Interface
	// config is what port-forwards are made with; nil where agents are dialled directly.
	config *rest.Config
	// name says which cluster it is, to a person.
	name              string
	namespace, system string
}

// clusterFault is why a cluster can't be spoken with at all, in a sentence.
type clusterFault struct{ reason string }

func (f *clusterFault) Error() string { return f.reason }

// cluster connects to the cluster of a run. It calls nobody yet.
func (g *Ground) cluster(run stage.Run) (*cluster, error) {
	o := g.options
	c := &cluster{client: o.Client, name: "the cluster", namespace: first(run.Namespace, o.Namespace, DefaultNamespace), system: first(o.SystemNamespace, DefaultSystemNamespace)}
	if c.client != nil {
		return c, nil
	}
	context := first(run.Context, o.Context)
	g.mu.Lock()
	defer g.mu.Unlock()
	if known := g.clusters[context]; known != nil {
		c.client, c.config, c.name = known.client, known.config, known.name
		return c, nil
	}
	config, name, err := configOf(context)
	if err != nil {
		return nil, err
	}
	c.name = name
	config.QPS, config.Burst = o.QPS, o.Burst
	config.ContentType, config.AcceptContentTypes = protobuf, protobuf+",application/json"
	config.UserAgent = "groundplan"
	c.config = config
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, &clusterFault{fmt.Sprintf("%s can't be spoken with: %v", name, err)}
	}
	g.clusters[context] = c
	return c, nil
}

// configOf reads the kubeconfig (KUBECONFIG, ~/.kube/config), or what a pod is given by its service account.
func configOf(context string) (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context})
	config, err := loader.ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err) || err != nil && os.Getenv("KUBECONFIG") == "" && strings.Contains(err.Error(), "no configuration has been provided"):
		return nil, "", &clusterFault{"there is no cluster to run on: no kubeconfig was found (KUBECONFIG, ~/.kube/config), and this is no pod of a cluster"}
	case err != nil:
		return nil, "", &clusterFault{fmt.Sprintf("the kubeconfig can't be used: %s", strings.TrimPrefix(err.Error(), "invalid configuration: "))}
	}
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, "", &clusterFault{fmt.Sprintf("the kubeconfig can't be used: %v", err)}
	}
	if context = first(context, raw.CurrentContext); context == "" {
		return config, "this pod's cluster", nil
	}
	return config, "the cluster of the context " + context, nil
}

// first is the first text that isn't empty.
func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// refusal is what the API server won't do for this user, whoever asks again, as the end of a sentence; empty for every
// other error.
func refusal(err error) string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return ""
	}
	message := status.Status().Message
	switch {
	case apierrors.IsUnauthorized(err):
		return "it does not know this user (" + sentence(message) + "): renew the credentials of the kubeconfig"
	case apierrors.IsForbidden(err):
		return sentence(message)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsMethodNotSupported(err), apierrors.IsRequestEntityTooLargeError(err):
		return sentence(message)
	}
	return ""
}

// passing says whether an error of the API server, or of the way to it, may be gone in a moment.
func passing(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	var network net.Error
	var wrong *url.Error
	return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsUnexpectedServerError(err) || errors.As(err, &network) || errors.As(err, &wrong) || errors.Is(err, context.DeadlineExceeded)
}

// patiently makes a call of the API server until it is answered: one that is away for a while is asked again, with
// growing pauses. What it refuses is returned at once.
func patiently[T any](ctx context.Context, call func() (T, error)) (T, error) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		value, err := call()
		if ctx.Err() != nil && err != nil {
			return value, context.Cause(ctx)
		}
		if !passing(err) {
			return value, err
		}
		select {
		case <-ctx.Done():
			return value, fmt.Errorf("%w (the API server: %w)", context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}
