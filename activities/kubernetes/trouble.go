package kubernetes

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// unschedulableFor is how long the scheduler may say that a pod fits nowhere, before it is taken at its word: room
	// that another run leaves takes it a moment to see.
	unschedulableFor = 8 * time.Second
	// pullsFor is how long an image may fail to be pulled for a reason that may pass.
	pullsFor = 12 * time.Second
	// createsFor is how long a container may fail to be created for a reason that may pass.
	createsFor = 8 * time.Second
)

// trouble is why a pod does not run, as far as its status tells.
type trouble struct {
	// Reason is the cluster's own short word: ErrImagePull, Unschedulable, OOMKilled.
	Reason string
	// Text is a sentence without the instance's name.
	Text string
	// Since is when it was first seen; pulls counts how often the image could not be pulled.
	Since time.Time
	pulls int
	// vague says that Text has no reason in it.
	vague bool
	// Patience is how long it may stay, since it may pass; 0: it stays.
	Patience time.Duration
	// Ended says that the pod has come to its end: there is nothing to wait for.
	Ended bool
}

// final says whether nothing more is to be hoped for.
func (t trouble) final(now time.Time) bool {
	return t.Reason != "" && (t.Ended || now.Sub(t.Since) >= t.Patience)
}

// troubleOf reads a pod's status. before is what it had been.
func troubleOf(p *corev1.Pod, before trouble, now time.Time) trouble {
	t := read(p)
	if t.Reason == "" {
		return t
	}
	t.Since, t.pulls = now, 0
	same := t.Reason == before.Reason || isPull(t.Reason) && isPull(before.Reason)
	if same {
		t.Since, t.pulls = before.Since, before.pulls
	}
	if isPull(t.Reason) {
		if t.Reason == "ErrImagePull" && before.Reason != t.Reason {
			t.pulls++
		}
		if t.pulls > 1 || pullIsFinal(t.Text) || pullIsFinal(before.Text) && same {
			t.Patience = 0
		}
		if t.vague && same {
			t.Text = before.Text // the back-off doesn't always repeat what the error said
		}
	}
	return t
}

// read is what the status says now.
func read(p *corev1.Pod) trouble {
	switch p.Status.Phase {
	case corev1.PodFailed, corev1.PodSucceeded:
		return endOf(p)
	case corev1.PodRunning:
		return trouble{}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return trouble{Reason: c.Reason, Text: "no node takes it: " + sentence(c.Message), Patience: unschedulableFor}
		}
	}
	for _, statuses := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for _, c := range statuses {
			if c.State.Waiting != nil {
				if t := waiting(c, p.Spec.NodeName); t.Reason != "" {
					return t
				}
			}
		}
	}
	return trouble{}
}

// waiting is why a container hasn't started; the zero value where it is only a matter of time.
func waiting(c corev1.ContainerStatus, node string) trouble {
	w := c.State.Waiting
	switch w.Reason {
	case "", "ContainerCreating", "PodInitializing":
		return trouble{}
	case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable":
		why := pullMessage(w.Message)
		t := trouble{Reason: w.Reason, Text: fmt.Sprintf("the image %s can't be pulled: %s", c.Image, first(why, "the kubelet waits before it tries again")), Patience: pullsFor, vague: why == ""}
		if w.Reason == "InvalidImageName" || w.Reason == "ErrImageNeverPull" {
			t.Patience = 0
		}
		return t
	case "CreateContainerConfigError":
		return trouble{Reason: w.Reason, Text: "its container can't be configured: " + sentence(w.Message)}
	}
	return trouble{Reason: w.Reason, Text: fmt.Sprintf("its container can't be started on node %s: %s: %s", node, w.Reason, sentence(w.Message)), Patience: createsFor}
}

// endOf is why a pod is over, which is none of its own doing: its supervisor lives as long as it does.
func endOf(p *corev1.Pod) trouble {
	t := trouble{Reason: p.Status.Reason, Ended: true}
	if t.Reason == "" {
		t.Reason = string(p.Status.Phase)
	}
	switch {
	case p.Status.Reason == "Evicted":
		t.Text = fmt.Sprintf("it was evicted from node %s: %s", p.Spec.NodeName, sentence(p.Status.Message))
		return t
	case p.Status.Reason != "":
		t.Text = fmt.Sprintf("node %s refused it: %s: %s", p.Spec.NodeName, p.Status.Reason, sentence(p.Status.Message))
		return t
	}
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		ended := c.State.Terminated
		switch {
		case ended == nil || ended.ExitCode == 0 && c.Name != containerName:
		case ended.Reason == "OOMKilled":
			t.Reason, t.Text = ended.Reason, "it was killed because it needed more memory than its group asks for"+limitOf(p)
			return t
		case c.Name != containerName:
			t.Text = fmt.Sprintf("the supervisor could not be put into its pod: it ended with status %d%s", ended.ExitCode, said(ended.Message))
			return t
		default:
			t.Text = fmt.Sprintf("its pod ended on node %s with status %d%s", p.Spec.NodeName, ended.ExitCode, said(ended.Message))
			return t
		}
	}
	t.Text = fmt.Sprintf("its pod ended on node %s%s", p.Spec.NodeName, said(p.Status.Message))
	return t
}

func limitOf(p *corev1.Pod) string {
	for _, c := range p.Spec.Containers {
		if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok {
			return " (a limit of " + limit.String() + " with the supervisor's share)"
		}
	}
	return ""
}

func said(message string) string {
	if message == "" {
		return ""
	}
	return ": " + sentence(message)
}

func isPull(reason string) bool { return reason == "ErrImagePull" || reason == "ImagePullBackOff" }

// finalPulls are what registries and runtimes say when asking again won't help.
var finalPulls = regexp.MustCompile(`(?i)not found|no such (image|host)|manifest unknown|name unknown|unauthori[sz]ed|forbidden|access denied|denied:|pull access|no match for platform|no basic auth|invalid reference|unsupported`)

func pullIsFinal(text string) bool { return finalPulls.MatchString(text) }

// pullNoise is what every layer between registry and kubelet puts around the reason.
var pullNoise = regexp.MustCompile(`^(Back-off pulling image "[^"]*"(: )?|ErrImagePull: |rpc error: code = \w+ desc = |failed to pull and unpack image "[^"]*": |failed to resolve (reference|image) "[^"]*": |failed to pull image "[^"]*": |[^ ]+: (not found)$)`)

// pullMessage is the reason in it; empty when there is none.
func pullMessage(message string) string {
	text := strings.TrimSpace(message)
	for {
		shorter := pullNoise.ReplaceAllString(text, "$4")
		if shorter == text {
			break
		}
		text = shorter
	}
	return sentence(text)
}

// longestMessage bounds what is repeated of what the cluster says, in bytes.
const longestMessage = 400

// sentence is a message of the cluster as the end of a sentence.
func sentence(message string) string {
	text := strings.Join(strings.Fields(message), " ")
	if len(text) > longestMessage {
		text = strings.ToValidUTF8(text[:longestMessage], "") + "…"
	}
	return strings.TrimSuffix(text, ".")
}
