package kubernetes

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// The labels of all that a run has on a cluster. labelRun selects it.
const (
	labelName      = "app.kubernetes.io/name"
	labelComponent = "app.kubernetes.io/component"
	labelManagedBy = "app.kubernetes.io/managed-by"
	labelRun       = "groundplan.dev/run"
	labelGroup     = "groundplan.dev/group"
	labelIndex     = "groundplan.dev/index"
	labelSlot      = "groundplan.dev/slot"
	labelTogether  = "groundplan.dev/together"

	componentInstance = "instance"
	componentSidecar  = "sidecar"

	// annotationMade is a hash of what a pod was made from: another one makes it another pod.
	annotationMade = "groundplan.dev/made"
	// annotationBy is the attempt of a stage that made the pod.
	annotationBy = "groundplan.dev/made-by"
)

// longestLabel is the longest DNS label and the longest value of a label, in bytes.
const longestLabel = 63

// podName is the name of an instance's pod, and ownerName that of the object that owns all pods of a run. They are DNS
// labels, follow from what they are of, and are the only ones: what stands before the hash may be the same for group 1-eu
// of run a and group eu of run a-1.
func podName(run, group string, index int) string {
	number := strconv.Itoa(index)
	return cut(plain(run+"-"+group+"-"+number), run+"/"+group+"/"+number, 4)
}

func ownerName(run string) string { return dnsLabel("groundplan-" + run) }

// dnsLabel makes a DNS label of a text. One that had to be changed for it ends in a hash of the whole.
func dnsLabel(text string) string {
	label := plain(text)
	if label == text && len(label) <= longestLabel {
		return label
	}
	return cut(label, text, 5)
}

// plain has only the letters of DNS labels.
func plain(text string) string {
	label := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, text)
	return strings.Trim(label, "-")
}

// cut shortens a label so that the first bytes of a hash of whole fit behind it.
func cut(label, whole string, hash int) string {
	sum := sha256.Sum256([]byte(whole))
	tail := hex.EncodeToString(sum[:hash])
	return strings.TrimLeft(strings.TrimRight(label[:min(len(label), longestLabel-len(tail)-1)], "-._")+"-"+tail, "-")
}

// runLabel is the value of labelRun. Ids of runs may begin and end with signs that values of labels may not.
func runLabel(run string) string {
	if strings.Trim(run, "._-") == run {
		return run
	}
	return cut(strings.Trim(run, "._-"), run, 5)
}

// ofRun selects what a run has.
func ofRun(run string) string {
	return labels.Set{labelRun: runLabel(run)}.String()
}
