package pipelines

import (
	"slices"
	"strings"
)

// checkEvents checks the events of a run stage: their names, groups and moments.
func (c *stageChecker) checkEvents(n *stageNode) {
	events := n.syntax.run.events
	index := map[string]int{}
	for i := range events {
		e := &events[i]
		if e.name.text == "" {
			continue
		}
		if first, taken := index[e.name.text]; taken {
			c.faults.faultf(e.name.at, "the name `%s` is taken by the event at %s", e.name.text, events[first].place)
			continue
		}
		index[e.name.text] = i
	}
	groups := n.runGroups(c.doc)
	for i := range events {
		if c.faults.full() {
			return
		}
		e := &events[i]
		if e.network != nil {
			c.checkNetwork(e.network)
		}
		for _, choice := range []*choiceSyntax{e.kill, e.pause} {
			if choice == nil || choice.group.text == "" {
				continue
			}
			c.known([]name{choice.group})
			if c.doc.isGroup(choice.group.text) && !n.placed.empty() && !slices.Contains(groups, choice.group.text) {
				c.faults.faultf(choice.group.at, "the group `%s` takes no part in this run", choice.group.text)
			}
		}
		c.checkMoment(e, events, index)
	}
	c.checkMomentCircles(events, index)
}

// checkMoment checks what an event is anchored to.
func (c *stageChecker) checkMoment(e *eventSyntax, events []eventSyntax, index map[string]int) {
	a, ok := e.at.literal.(Anchor)
	if !ok {
		return
	}
	a, err := resolveAnchor(a, func(name string) bool { _, ok := index[name]; return ok })
	if err != nil {
		c.faults.suggestf(e.at.at, nearest(a.State, sortedKeys(index)), "%v", err)
		return
	}
	if a.Healed && !events[index[a.Event]].ends() {
		c.faults.faultf(e.at.at, "`%s` never heals: it has no `for`, `pause` or `restart`", a.Event)
	}
}

// ends says whether the event is over at some time before the stage is.
func (e *eventSyntax) ends() bool { return e.has("for") || e.pause != nil || e.has("restart") }

// checkMomentCircles refuses events that wait for each other.
func (c *stageChecker) checkMomentCircles(events []eventSyntax, index map[string]int) {
	reported := make([]bool, len(events))
	for i := range events {
		var path []int
		for at := i; !reported[at]; {
			if from := slices.Index(path, at); from >= 0 {
				var names []string
				for _, k := range append(path[from:], at) {
					names = append(names, events[k].name.text)
					reported[k] = true
				}
				c.faults.faultf(events[at].key("at"), "events wait for each other in a circle: %s", strings.Join(names, " → "))
				break
			}
			path = append(path, at)
			a, _ := events[at].at.literal.(Anchor)
			next, ok := index[a.State]
			if !ok {
				break
			}
			at = next
		}
		for _, k := range path {
			reported[k] = true // known to lead nowhere, or told
		}
	}
}
