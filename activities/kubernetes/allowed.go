package kubernetes

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// askForRole is what to do about a right that is missing.
const askForRole = "ask for the chart's role groundplan-runner, or use another context (--kube-context)"

// right is something a run does on a cluster. Resource may have a subresource behind a slash.
type right struct {
	verb, resource string
	system         bool // in the namespace of the sidecars, not of the instances
}

// rights are all that a run needs. Listing nodes and quotas only makes the check before a run better.
var rights = []right{
	{"create", "pods", false}, {"list", "pods", false}, {"watch", "pods", false}, {"delete", "pods", false}, {"deletecollection", "pods", false},
	{"create", "configmaps", false}, {"get", "configmaps", false}, {"delete", "configmaps", false},
	{"list", "pods", true}, {"create", "pods/portforward", true}, {"get", "secrets", true},
}

// forbidden says what of it this user may not do; empty when all is allowed.
func (c *cluster) forbidden(ctx context.Context, direct bool) (string, error) {
	missing, faults := make([]string, len(rights)), make([]error, len(rights))
	var all sync.WaitGroup
	for i, r := range rights {
		if r.system && direct {
			continue
		}
		all.Go(func() {
			allowed, err := c.may(ctx, r)
			if faults[i] = err; err == nil && !allowed {
				missing[i] = r.verb + " " + r.resource
				if r.system {
					missing[i] += " in " + c.system
				}
			}
		})
	}
	all.Wait()
	var not []string
	for i := range rights {
		if faults[i] != nil {
			return "", fmt.Errorf("asking what is allowed on %s: %w", c.name, faults[i])
		}
		if missing[i] != "" {
			not = append(not, missing[i])
		}
	}
	if len(not) == 0 {
		return "", nil
	}
	return fmt.Sprintf("you may not place instances in the namespace %s of %s, for want of the right to %s: %s", c.namespace, c.name, strings.Join(not, ", "), askForRole), nil
}

func (c *cluster) may(ctx context.Context, r right) (bool, error) {
	resource, sub, _ := strings.Cut(r.resource, "/")
	attributes := &authorizationv1.ResourceAttributes{Namespace: c.namespace, Verb: r.verb, Resource: resource, Subresource: sub}
	if r.system {
		attributes.Namespace = c.system
		if r.resource == "secrets" {
			attributes.Name = secretName
		}
	}
	review, err := patiently(ctx, func() (*authorizationv1.SelfSubjectAccessReview, error) {
		return c.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes},
		}, metav1.CreateOptions{})
	})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

// ensureNamespace makes the instances' namespace where there is none. The string is why there can't be one.
func (c *cluster) ensureNamespace(ctx context.Context) (string, error) {
	_, err := patiently(ctx, func() (*corev1.Namespace, error) {
		return c.client.CoreV1().Namespaces().Get(ctx, c.namespace, metav1.GetOptions{})
	})
	if err == nil || apierrors.IsForbidden(err) { // whoever may not look at it finds out by using it
		return "", nil
	}
	if !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("looking for the namespace %s: %w", c.namespace, err)
	}
	_, err = patiently(ctx, func() (*corev1.Namespace, error) {
		return c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: c.namespace,
			Labels: map[string]string{
				labelName: "groundplan", labelManagedBy: "groundplan",
				"pod-security.kubernetes.io/enforce": "restricted",
			},
		}}, metav1.CreateOptions{})
	})
	switch {
	case err == nil || apierrors.IsAlreadyExists(err):
		return "", nil
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("there is no namespace %s on %s, and you may not make one: have it made (kubectl create namespace %s), or name another one (--kube-namespace)", c.namespace, c.name, c.namespace), nil
	case refusal(err) != "":
		return fmt.Sprintf("the namespace %s can't be made on %s: %s", c.namespace, c.name, refusal(err)), nil
	}
	return "", fmt.Errorf("making the namespace %s: %w", c.namespace, err)
}

// accountWithin is how long a new namespace may be without its service account.
const accountWithin = 10 * time.Second

// create makes a pod, or with dry only asks whether it could be made. The string is why it can't.
func (c *cluster) create(ctx context.Context, p *corev1.Pod, dry bool) (string, error) {
	o := metav1.CreateOptions{}
	if dry {
		o.DryRun = []string{metav1.DryRunAll}
	}
	for since := time.Now(); ; {
		_, err := patiently(ctx, func() (*corev1.Pod, error) {
			return c.client.CoreV1().Pods(c.namespace).Create(ctx, p, o)
		})
		switch {
		case err == nil || apierrors.IsAlreadyExists(err):
			return "", nil
		case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "error looking up service account") && time.Since(since) < accountWithin:
			select {
			case <-ctx.Done():
				return "", context.Cause(ctx)
			case <-time.After(200 * time.Millisecond):
			}
			continue
		case apierrors.IsNotFound(err):
			return fmt.Sprintf("there is no namespace %s on %s (any more): %s", c.namespace, c.name, sentence(err.Error())), nil
		case refusal(err) != "":
			return c.refused(p, refusal(err)), nil
		}
		return "", fmt.Errorf("making the pod %s: %w", p.Name, err)
	}
}

// refused puts what the API server said about a pod into words.
func (c *cluster) refused(p *corev1.Pod, why string) string {
	why = strings.TrimPrefix(why, fmt.Sprintf("pods %q is forbidden: ", p.Name))
	switch {
	case strings.Contains(why, "exceeded quota"):
		return fmt.Sprintf("a quota of the namespace %s doesn't allow it: %s: raise it, ask for less, or use another namespace (--kube-namespace)", c.namespace, strings.TrimPrefix(why, "exceeded quota: "))
	case strings.Contains(why, "must specify") || strings.Contains(why, "failed quota"):
		return fmt.Sprintf("a quota of the namespace %s wants every instance to say what it asks for (%s): give the group cpu and memory", c.namespace, why)
	case strings.Contains(why, "violates PodSecurity"):
		return fmt.Sprintf("the namespace %s doesn't allow such pods: %s", c.namespace, why)
	}
	return "the cluster refuses its pod: " + why
}
