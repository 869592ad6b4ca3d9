//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

// mostFaults bounds how many faults an answer names.
const mostFaults = 20

// world is every instance that a run's pipeline has, placed or not, on this node or another. Positions and counts never
// change.
type world struct {
	ask    control.Placement
	groups map[string]*control.Group
	places []*place // by slot
	byName map[string]*place
	byHost map[string]*place
	left   []int // slots that were here and are on another node, which Programs don't know yet
}

// place is where one instance lives, over all stages.
type place struct {
	group   *control.Group
	index   int
	slot    int
	name    string // group/index
	host    string
	control netip.Addr
	data    netip.Addr

	// Guarded by the keeper's mu.
	own    bool        // on this node
	pod    control.Pod // the zero value where there are none
	placed bool
	runs   *member // what runs here now

	configs configs
}

// at is the place with that slot, nil where there is none.
func (w *world) at(slot int) *place {
	if w == nil || slot < 0 || slot >= len(w.places) {
		return nil
	}
	return w.places[slot]
}

// newWorld lays out every group in order.
func newWorld(ask control.Placement, network Network) (*world, error) {
	w := &world{
		ask: ask, groups: make(map[string]*control.Group),
		byName: make(map[string]*place), byHost: make(map[string]*place),
	}
	for i := range ask.All {
		g := &ask.All[i]
		if _, twice := w.groups[g.Name]; twice || g.Name == "" || g.Instances < 0 {
			return nil, control.Refuse(http.StatusBadRequest, "group %q of %d instances can't be placed: names must be unique and counts not negative", g.Name, g.Instances)
		}
		w.groups[g.Name] = g
		for index := range g.Instances {
			w.add(g, index, network)
		}
	}
	return w, w.assign()
}

func (w *world) add(g *control.Group, index int, network Network) {
	p := &place{
		group: g, index: index, slot: len(w.places),
		name: g.Name + "/" + strconv.Itoa(index), host: control.Hostname(g.Name, index),
	}
	p.control, p.data = network.Addresses(p.slot)
	w.places = append(w.places, p)
	w.byName[p.name], w.byHost[p.host] = p, p
}

// Place brings every instance of the asked groups to the gate: what is there is kept, what is missing is added, and
// one that can't be placed doesn't stop the others.
func (k *Keeper) Place(ctx context.Context, ask control.Placement) (control.Status, error) {
	select {
	case k.placing <- struct{}{}:
		defer func() { <-k.placing }()
	case <-ctx.Done():
		return control.Status{}, ctx.Err()
	}
	wanted, err := k.lay(ask)
	if err != nil {
		return control.Status{}, err
	}
	if err := k.keepPlacement(ask); err != nil {
		return control.Status{}, err
	}
	if err := k.setPeers(); err != nil {
		return control.Status{}, err
	}
	k.forget()
	k.memory.before()
	// From here on it doesn't matter whether the caller stays: another one will ask again.
	faults := k.settle(k.ctx, wanted)
	if err := k.seat(k.ctx); err != nil {
		return control.Status{}, err
	}
	if err := k.ctx.Err(); err != nil {
		return control.Status{}, control.Refuse(http.StatusConflict, "the run was released while its instances were being placed")
	}
	return k.placed(wanted, faults), nil
}

// lay returns the places of the asked groups, in the world that the first placement made.
func (k *Keeper) lay(ask control.Placement) ([]*place, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closing {
		return nil, control.Refuse(http.StatusConflict, "the run has been released")
	}
	if ask.Run != "" && ask.Run != k.run {
		return nil, control.Refuse(http.StatusBadRequest, "this is the sidecar of run %s, not of %s", k.run, ask.Run)
	}
	if err := k.renew(ask); err != nil {
		return nil, err
	}
	var wanted []*place
	for _, name := range ask.Groups {
		if _, known := k.world.groups[name]; !known {
			return nil, control.Refuse(http.StatusBadRequest, "group %q is to be placed but is not among all groups", name)
		}
	}
	for _, p := range k.world.places {
		if p.own && slices.Contains(ask.Groups, p.group.Name) {
			wanted = append(wanted, p)
		}
	}
	return wanted, nil
}

// renew takes what instances run (programs, parameters), and where, from the newest placement; who there is stays as it
// was.
func (k *Keeper) renew(ask control.Placement) error {
	fresh, err := newWorld(ask, k.fabric)
	if err != nil {
		return err
	}
	if k.world == nil {
		k.world = fresh
		return nil
	}
	same := func(a, b control.Group) bool { return a.Name == b.Name && a.Instances == b.Instances }
	if !slices.EqualFunc(k.world.ask.All, ask.All, same) {
		return control.Refuse(http.StatusConflict, "run %s holds a placement of other groups: release it before placing these", k.run)
	}
	if err := k.world.reassign(fresh); err != nil {
		return err
	}
	for _, p := range k.world.places {
		p.group = fresh.groups[p.group.Name]
	}
	k.world.ask, k.world.groups = ask, fresh.groups
	return nil
}

// settle makes each place ready for programs and gives it a seat in the network. Error i belongs to place i.
func (k *Keeper) settle(ctx context.Context, wanted []*place) []error {
	homes, anew := k.homes(wanted)
	faults := k.programs.Place(ctx, homes)
	var seats []Seat
	var owner []int
	for i, p := range wanted {
		if faults[i] == nil && (anew[i] || !k.fabric.Present(p.slot)) {
			seats = append(seats, Seat{Slot: p.slot, Hostname: p.host})
			owner = append(owner, i)
		}
	}
	for i, err := range k.fabric.Add(ctx, seats) {
		if err != nil {
			faults[owner[i]] = fmt.Errorf("giving it a network: %w", err)
		}
	}
	return faults
}

// homes are where places are. Anew are those of pods that were not placed yet: what is in the network at their slots is
// for other ones, or from another sidecar.
func (k *Keeper) homes(wanted []*place) (homes []Home, anew []bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	homes, anew = make([]Home, len(wanted)), make([]bool, len(wanted))
	for i, p := range wanted {
		homes[i] = Home{Slot: p.slot, Group: p.group.Name, Index: p.index, Pod: p.pod}
		anew[i] = p.pod != control.Pod{} && !p.placed
	}
	return homes, anew
}

// seat tells who shapes the network who sits where.
func (k *Keeper) seat(ctx context.Context) error {
	k.mu.RLock()
	all := make([]pipelines.Group, len(k.world.ask.All))
	for i, g := range k.world.ask.All {
		all[i] = g.Group
	}
	k.mu.RUnlock()
	err := k.shaping.Seat(ctx, all)
	if refused := new(Refusal); errors.As(err, &refused) {
		return control.Refuse(http.StatusBadRequest, "%s", refused.Sentence)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("putting the instances on the data network: %w", err)
	}
	return nil
}

// placed writes down what came of a placement.
func (k *Keeper) placed(wanted []*place, faults []error) control.Status {
	k.mu.Lock()
	added, kept, bad := 0, 0, make(map[string]string)
	count := 0
	for i, p := range wanted {
		switch {
		case faults[i] != nil:
			p.placed = false
			if count++; len(bad) < mostFaults {
				bad[p.name] = faults[i].Error()
			}
		case p.placed:
			kept++
		default:
			p.placed = true
			added++
		}
	}
	k.mu.Unlock()
	k.memory.after(added)
	status := k.status()
	status.New, status.Kept, status.Faults, status.FaultCount = added, kept, bad, count
	k.log.Info("placed", "new", added, "kept", kept, "faults", count)
	return status
}
