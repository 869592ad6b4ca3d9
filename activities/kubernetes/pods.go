package kubernetes

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

const (
	// folder is where the pod's shared volume is mounted; the sidecar of its node finds the volume by its name.
	folder     = "/groundplan"
	volumeName = "groundplan"
	// nobody is the user that instances run as: no right on the cluster or the node goes with it.
	nobody = 65532
	// SupervisorShare is what a pod asks for its supervisor, in bytes of memory, beside what the group asks for.
	SupervisorShare = 16 << 20
	// syncHost is a name that some plans look for the sync service under.
	syncHost = "testground-sync-service"
	// containerName is that of the one container of a pod.
	containerName = "instance"
)

// seat is one instance that is to be there.
type seat struct {
	group *pipelines.Group
	index int
	slot  int
	pod   string // the name of its pod
}

// name is group/index.
func (s seat) name() string { return instance(s.group.Name, s.index) }

func instance(group string, index int) string { return group + "/" + strconv.Itoa(index) }

// seats lays out every instance of a run: its slot is its place among all.
func seats(run string, groups []pipelines.Group) []seat {
	var all []seat
	for i := range groups {
		for index := range groups[i].Instances {
			all = append(all, seat{&groups[i], index, len(all), podName(run, groups[i].Name, index)})
		}
	}
	return all
}

// mold is what the pods of a run have in common.
type mold struct {
	run stage.Run
	// by is the attempt that makes them.
	by        string
	namespace string
	// supervisor is the image that has the supervisor.
	supervisor   string
	images       map[string]string // group → image
	owner        *metav1.OwnerReference
	nodeSelector map[string]string
	tolerations  []corev1.Toleration
	// avoid are the nodes that instances may not go to, because nothing serves them there.
	avoid []string
	// limitCPU says that the namespace wants the processors limited: one of its quotas counts that.
	limitCPU bool
	// together is group → the name of what it has to share a node with.
	together map[string]string
}

// made is a hash of what the pods of a group are made from.
func (m *mold) made(g *pipelines.Group) string {
	data, _ := json.Marshal(struct { // a few plain fields: it can't fail
		Image       string
		CPU, Memory int64
		Selector    map[string]string
	}{m.images[g.Name], g.CPU, int64(g.Memory), m.nodeSelector})
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// pod is the pod of one instance.
func (m *mold) pod(s seat) *corev1.Pod {
	grace, no, uid := int64(1), false, int64(nobody)
	meta := metav1.ObjectMeta{
		Name:      s.pod,
		Namespace: m.namespace,
		Labels: map[string]string{
			labelName: "groundplan", labelComponent: componentInstance, labelManagedBy: "groundplan",
			labelRun: runLabel(m.run.ID), labelGroup: s.group.Name, labelIndex: strconv.Itoa(s.index), labelSlot: strconv.Itoa(s.slot),
		},
		Annotations: map[string]string{annotationMade: m.made(s.group), annotationBy: m.by},
	}
	if with := m.together[s.group.Name]; with != "" {
		meta.Labels[labelTogether] = with
	}
	if m.owner != nil {
		meta.OwnerReferences = []metav1.OwnerReference{*m.owner}
	}
	mounts := []corev1.VolumeMount{{Name: volumeName, MountPath: folder}}
	return &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{
		Hostname:                      control.Hostname(s.group.Name, s.index),
		RestartPolicy:                 corev1.RestartPolicyNever,
		TerminationGracePeriodSeconds: &grace,
		AutomountServiceAccountToken:  &no,
		EnableServiceLinks:            &no,
		NodeSelector:                  m.nodeSelector,
		Tolerations:                   m.tolerations,
		Affinity:                      m.affinity(s.group.Name),
		HostAliases:                   []corev1.HostAlias{{IP: "127.0.0.1", Hostnames: []string{syncHost}}},
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: &uid, RunAsGroup: &uid,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Volumes: []corev1.Volume{{Name: volumeName, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		InitContainers: []corev1.Container{{
			Name: "supervisor", Image: m.supervisor, ImagePullPolicy: corev1.PullIfNotPresent,
			Command:         []string{"/supervisor", "install", folder},
			Resources:       resources(s.group, m.limitCPU),
			SecurityContext: harmless(), VolumeMounts: mounts,
		}},
		Containers: []corev1.Container{{
			Name: containerName, Image: m.images[s.group.Name], ImagePullPolicy: corev1.PullIfNotPresent,
			Command:         []string{folder + "/supervisor"},
			Resources:       resources(s.group, m.limitCPU),
			SecurityContext: harmless(), VolumeMounts: mounts,
		}},
	}}
}

// affinity keeps instances off the nodes that nothing serves them on, and those together that have to be.
func (m *mold) affinity(group string) *corev1.Affinity {
	var affinity corev1.Affinity
	if len(m.avoid) > 0 {
		affinity.NodeAffinity = &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: "metadata.name", Operator: corev1.NodeSelectorOpNotIn, Values: m.avoid},
			}}},
		}}
	}
	if with := m.together[group]; with != "" {
		affinity.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{labelRun: runLabel(m.run.ID), labelTogether: with}},
			TopologyKey:   corev1.LabelHostname,
		}}}
	}
	if affinity == (corev1.Affinity{}) {
		return nil
	}
	return &affinity
}

// harmless is what PodSecurity's restricted profile asks of a container.
func harmless() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false), RunAsNonRoot: new(true),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// resources are what a group asks for, for each instance. It gets no more memory than that; of the processors it gets its
// share, and more while nobody else wants it: a limit would hold back what every program does when it starts. Where
// limitCPU says so, it is limited all the same. What a group doesn't ask for isn't limited; a little memory is requested in
// any case, so that nodes aren't filled without end.
func resources(g *pipelines.Group, limitCPU bool) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceMemory: *resource.NewQuantity(memoryOf(g), resource.BinarySI),
	}, Limits: corev1.ResourceList{}}
	if g.Memory > 0 {
		r.Limits[corev1.ResourceMemory] = r.Requests[corev1.ResourceMemory]
	}
	if g.CPU > 0 {
		r.Requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(g.CPU, resource.DecimalSI)
		if limitCPU {
			r.Limits[corev1.ResourceCPU] = r.Requests[corev1.ResourceCPU]
		}
	}
	return r
}

// memoryOf is what an instance's pod requests, in bytes.
func memoryOf(g *pipelines.Group) int64 { return int64(g.Memory) + SupervisorShare }

// owner is the object that owns all pods of a run: with it they go, whoever deletes it.
func (m *mold) ownerObject() *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Name: ownerName(m.run.ID), Namespace: m.namespace,
		Labels: map[string]string{labelName: "groundplan", labelManagedBy: "groundplan", labelRun: runLabel(m.run.ID)},
	}, Data: map[string]string{"run": m.run.ID, "commit": m.run.Commit}}
}

// ownedBy refers to the owner that is there.
func ownedBy(owner *corev1.ConfigMap) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}
}
