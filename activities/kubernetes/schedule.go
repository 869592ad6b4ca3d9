package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Schedule brings every instance of the stage's groups to the gate. What can't be placed doesn't keep the others from
// being placed; those stay, for the stage's next attempt or whoever resumes the run, until the run is released.
func (g *Ground) Schedule(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	groups := in.Stage.Schedule.Groups
	if _, why := placement(in, groups); why != "" {
		return sidecars.Invalid("%s", why), nil
	}
	unlock, err := sidecars.Lock(ctx, g.options.Home.Run(in.Run.ID))
	if err != nil {
		return stage.Result{}, err
	}
	defer unlock()
	s, err := g.open(in.Run, in)
	if err != nil {
		return g.known(ctx, "placing the instances", err)
	}
	defer s.close()
	result, err := s.schedule(ctx, groups, report)
	if err != nil {
		return g.known(ctx, "placing the instances", err)
	}
	return result, nil
}

// schedule places what is missing of groups, and tells every node of the run what it holds. The caller holds the run's
// lock.
func (s *session) schedule(ctx context.Context, groups []string, report func(stage.Progress)) (stage.Result, error) {
	p := &placing{session: s, groups: groups, report: report, since: time.Now(), faults: map[string]string{}, hopeless: map[string]hopelessness{}}
	for _, x := range seats(s.in.Run.ID, s.in.Groups) {
		if slices.Contains(groups, x.group.Name) {
			p.wanted = append(p.wanted, x)
		}
	}
	report(stage.Progress{Total: len(p.wanted), Note: "looking at the cluster"})
	why, err := p.check(ctx)
	if err != nil {
		return stage.Result{}, err
	}
	if why != "" {
		return sidecars.Invalid("%s", why), nil
	}
	if err := p.place(ctx); err != nil {
		return stage.Result{}, err
	}
	if len(p.faults) > 0 {
		return p.failed(ctx), nil
	}
	status, err := s.tell(ctx, groups, report)
	if err != nil {
		return stage.Result{}, err
	}
	status.New, status.Kept = p.counts()
	return p.began(sidecars.Placed(s.in, groups, status)), nil
}

// counts are the instances that this attempt has placed, and those that it found. An attempt may have taken several
// tries: what an earlier one of them has placed was not found.
func (p *placing) counts() (placed, found int) {
	p.view.each(p.wanted, func(s seat, there pod) {
		if there.Name != "" && there.By != p.mold.by && p.faults[s.name()] == "" {
			found++
		}
	})
	return len(p.wanted) - found, found
}

// began gives a result the time at which the attempt began, whatever try of it has come to an end.
func (p *placing) began(result stage.Result) stage.Result {
	if p.in.Stage.Kind == pipelines.KindSchedule {
		result.Started = p.state.Began
	}
	return result
}

// placing is the work of one attempt to place groups.
type placing struct {
	*session
	groups []string
	report func(stage.Progress)
	since  time.Time
	wanted []seat
	site   *site
	mold   mold

	missing []seat // no pod is there that can be kept
	stale   []pod  // pods that can't
	faults  map[string]string
	// firstFault is the first of them, with the instance's name.
	firstFault string
	// hopeless are the images that can't be pulled.
	hopeless map[string]hopelessness
}

// check finds out, before anything is made, whether the cluster can hold what is missing and lets this user place it.
// The string says what is in the way.
func (p *placing) check(ctx context.Context) (string, error) {
	c := p.cluster
	if why, err := c.forbidden(ctx, p.reach.direct != nil); why != "" || err != nil {
		return why, err
	}
	if err := p.connect(ctx); err != nil {
		return "", err
	}
	if why, err := c.ensureNamespace(ctx); why != "" || err != nil {
		return why, err
	}
	if err := p.look(ctx); err != nil {
		return "", err
	}
	quotas, err := c.quotas(ctx)
	if err != nil {
		return "", err
	}
	if why, err := p.room(ctx, countsCPU(quotas)); why != "" || err != nil {
		return why, err
	}
	if why := p.mold.exceeds(quotas, p.missing); why != "" {
		return why, nil
	}
	return p.rehearse(ctx)
}

// room finds the nodes for what is missing. The string says why they are too few. For a while after an API server was away
// all pods and nodes count as not ready, whatever they are: where that is in the way, it waits.
func (p *placing) room(ctx context.Context, limitCPU bool) (string, error) {
	for {
		var err error
		if p.site, err = p.survey(ctx); err != nil {
			return "", err
		}
		p.form(limitCPU)
		p.sort()
		why := p.site.lacks(p)
		waited := time.Since(p.since)
		if why == "" || !p.site.mayCome() {
			return why, nil
		}
		if waited >= p.ground.limits.ready {
			return fmt.Sprintf("%s (waited %v for it)", why, waited.Round(time.Second)), nil
		}
		p.report(stage.Progress{Total: len(p.wanted), Note: fmt.Sprintf("waiting up to %v for nodes: %s", p.ground.limits.ready, why)})
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(p.ground.limits.asks):
		}
		if err := p.reach.relist(ctx); err != nil {
			return "", err
		}
	}
}

// form is what pods are made with.
func (p *placing) form(limitCPU bool) {
	p.mold = mold{
		run: p.in.Run, by: sidecars.Key(p.in), namespace: p.cluster.namespace, supervisor: p.site.image, images: map[string]string{},
		nodeSelector: p.ground.options.NodeSelector, tolerations: p.ground.options.Tolerations, avoid: p.site.avoid,
		limitCPU: limitCPU,
		together: map[string]string{},
	}
	for _, groups := range p.in.Together {
		for _, group := range groups {
			p.mold.together[group] = groups[0]
		}
	}
	for _, g := range p.in.Groups {
		p.mold.images[g.Name] = p.in.Artifacts[g.Artifact].Image
	}
}

// sort tells the pods that can be kept from those that can't, and from those that aren't there.
func (p *placing) sort() {
	p.missing, p.stale = nil, nil
	p.view.each(p.wanted, func(s seat, there pod) {
		switch {
		case there.Name == "":
			p.missing = append(p.missing, s)
		case there.Leaving || there.Trouble.Reason != "" || there.Slot != s.slot || there.Made != p.mold.made(s.group) || p.site.dead[there.Node]:
			p.missing, p.stale = append(p.missing, s), append(p.stale, there)
		}
	})
}

// rehearse asks the API server whether it would take one pod of each group.
func (p *placing) rehearse(ctx context.Context) (string, error) {
	tried := map[string]bool{}
	for _, s := range p.missing {
		if tried[s.group.Name] {
			continue
		}
		tried[s.group.Name] = true
		pod := p.mold.pod(s)
		pod.Name = dnsLabel(pod.Name + "-rehearsal") // one of that name may be there
		if why, err := p.cluster.create(ctx, pod, true); why != "" || err != nil {
			return fmt.Sprintf("group %s: %s", s.group.Name, why), err
		}
	}
	return "", nil
}

// place makes what is missing and waits until all that can run does. Faults are in p.faults.
func (p *placing) place(ctx context.Context) error {
	p.state.Groups = sidecars.InOrder(p.in, slices.Concat(p.state.Groups, p.groups))
	p.state.Placed = ""
	if p.state.By != p.mold.by {
		p.state.By, p.state.Began = p.mold.by, p.since
	}
	if err := p.state.write(p.folder); err != nil {
		return err
	}
	owner, err := p.own(ctx)
	if err != nil {
		return err
	}
	p.mold.owner = ownedBy(owner)
	if err := p.clear(ctx); err != nil {
		return err
	}
	if err := p.make(ctx); err != nil {
		return err
	}
	return p.await(ctx)
}

// own makes sure of the object that owns the run's pods.
func (p *placing) own(ctx context.Context) (*corev1.ConfigMap, error) {
	maps := p.cluster.client.CoreV1().ConfigMaps(p.cluster.namespace)
	for {
		owner, err := patiently(ctx, func() (*corev1.ConfigMap, error) { return maps.Get(ctx, ownerName(p.in.Run.ID), metav1.GetOptions{}) })
		if err == nil {
			return owner, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("looking for what owns the run's pods: %w", err)
		}
		owner, err = patiently(ctx, func() (*corev1.ConfigMap, error) {
			return maps.Create(ctx, p.mold.ownerObject(), metav1.CreateOptions{})
		})
		if err == nil {
			return owner, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("making what owns the run's pods: %w", err)
		}
	}
}

// failed is the result where some instances could not be placed. Their pods are taken away, so that nothing goes on
// trying for them.
func (p *placing) failed(ctx context.Context) stage.Result {
	var stuck []pod
	p.view.each(p.wanted, func(s seat, there pod) {
		if _, fault := p.faults[s.name()]; fault && there.Name != "" {
			stuck = append(stuck, there)
		}
	})
	if err := p.remove(ctx, stuck); err != nil {
		p.ground.options.Log.Warn("pods that could not be placed are still there", "run", p.in.Run.ID, "error", err)
	}
	status := control.Status{FaultCount: len(p.faults), Faults: p.faults}
	status.New, status.Kept = p.counts()
	result := sidecars.Placed(p.in, p.groups, status)
	result.Reason = together(p, result.Reason)
	return p.began(result)
}

// together says once what is wrong with all instances of a group.
func together(p *placing, reason string) string {
	byText := map[string][]string{}
	for name, text := range p.faults {
		byText[text] = append(byText[text], name)
	}
	if len(byText) > sidecars.Shown || len(p.faults) == len(byText) {
		return reason
	}
	var parts []string
	for _, text := range slices.Sorted(maps.Keys(byText)) {
		names := byText[text]
		slices.SortFunc(names, sidecars.ByInstance)
		if more := len(names) - 2; more > 0 {
			names = append(names[:2:2], fmt.Sprintf("and %d more", more))
		}
		parts = append(parts, fmt.Sprintf("%s: %s", joined(names), text))
	}
	return fmt.Sprintf("%d of %s could not be placed: %s", len(p.faults), sidecars.Count(len(p.wanted)), joinedBy(parts, "; "))
}

// tell has a sidecar on every node that has instances of groups placed so far, and tells it which they are.
func (s *session) tell(ctx context.Context, groups []string, report func(stage.Progress)) (control.Status, error) {
	ask, why := placement(s.in, s.state.Groups)
	if why != "" {
		return control.Status{}, control.Refuse(400, "%s", why)
	}
	held := s.held()
	names := slices.Sorted(maps.Keys(held))
	s.state.Holders, s.state.Lead = names, lead(held)
	if err := s.asking(names); err != nil {
		return control.Status{}, err
	}
	peers, err := s.peers(ctx, names, held)
	if err != nil {
		return control.Status{}, err
	}
	answers := make([]control.Status, len(names))
	total := sidecars.Instances(s.in, groups)
	report(stage.Progress{Total: total, Placed: total, Note: fmt.Sprintf("connecting the instances on %s", nodesText(len(names)))})
	nodes, position := s.named(names), positions(names)
	err = s.onAll(ctx, nodes, func(ctx context.Context, n *node) error {
		asked := ask
		asked.Node = &control.Node{Name: n.name, Lead: n.name == s.state.Lead, Pods: held[n.name], Nodes: peers}
		return s.patient(ctx, n, s.ground.limits.answers, func(ctx context.Context) (err error) {
			answers[position[n.name]], err = n.control.Place(ctx, asked)
			return err
		})
	})
	if err != nil {
		return control.Status{}, err
	}
	sum := sumPlaced(answers)
	if sum.FaultCount == 0 {
		s.state.Placed = fingerprint(held)
		if err := s.state.write(s.folder); err != nil {
			return sum, err
		}
	}
	placed := sidecars.PlacedOf(groups, sum)
	report(stage.Progress{Total: total, Placed: placed, Waiting: placed})
	return sum, nil
}

// errNoAddress is a node whose agent doesn't say where other nodes reach it.
var errNoAddress = errors.New("its agent doesn't know the node's address")
