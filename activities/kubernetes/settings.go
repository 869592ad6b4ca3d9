package kubernetes

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// ParseNodeSelector reads `key=value,…`: the labels that a node has to have.
func ParseNodeSelector(text string) (map[string]string, error) {
	selector, err := labels.ConvertSelectorToLabelsMap(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no node selector like pool=tests,zone=a: %w", text, err)
	}
	return selector, nil
}

// ParseTolerations reads taints that are tolerated, as kubectl writes them: `key=value:Effect`, `key:Effect` for whatever
// value, `key` for whatever effect too; several with commas between them.
func ParseTolerations(text string) ([]corev1.Toleration, error) {
	var all []corev1.Toleration
	for part := range strings.SplitSeq(text, ",") {
		what, effect, _ := strings.Cut(strings.TrimSpace(part), ":")
		key, value, valued := strings.Cut(what, "=")
		t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffect(effect)}
		if valued {
			t.Operator, t.Value = corev1.TolerationOpEqual, value
		}
		effects := []corev1.TaintEffect{"", corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute, corev1.TaintEffectPreferNoSchedule}
		if key == "" || !slices.Contains(effects, t.Effect) {
			return nil, fmt.Errorf("%q is no toleration like key=value:NoSchedule", part)
		}
		all = append(all, t)
	}
	return all, nil
}
