package pipelines

import "strings"

func (r *resolver) resolveRun(n *stageNode) *Run {
	s, in := n.syntax.run, n.scope
	out := &Run{
		Groups:   n.runGroups(r.doc),
		Case:     get(r, in, s.testCase, ""),
		Params:   r.textMap(in, s.params),
		Success:  get(r, in, s.success, Share(1)),
		FailFast: get(r, in, s.failFast, false),
	}
	for _, name := range out.Groups {
		if i, ok := r.doc.groupIndex[name]; ok && i < len(r.groups) && r.groups[i].Testground {
			r.checkTestground(s.params, out.Params, "the group `"+name+"`")
			break
		}
	}
	names := map[string]bool{}
	for i := range s.events {
		names[s.events[i].name.text] = true
	}
	isEvent := func(name string) bool { return name != "" && names[name] }
	for i := range s.events {
		out.Events = append(out.Events, r.resolveEvent(in, &s.events[i], isEvent))
	}
	return out
}

// checkTestground refuses what TEST_INSTANCE_PARAMS can't carry: the SDKs would silently drop it.
func (r *resolver) checkTestground(entries []entry[value], values map[string]string, who string) {
	for _, e := range entries {
		if i := strings.IndexAny(values[e.key], "=|"); i >= 0 {
			r.faults.faultf(e.value.at, "the value of `%s` holds `%c`, which Testground's SDKs drop: leave it out, or set `testground: false` for %s",
				e.key, values[e.key][i], who)
		}
	}
}

func (r *resolver) resolveEvent(in *scope, e *eventSyntax, isEvent func(string) bool) Event {
	out := Event{
		Name:    e.name.text,
		For:     get(r, in, e.duration, Duration(0)),
		Restart: get(r, in, e.restart, Duration(0)),
	}
	if a, ok := e.at.literal.(Anchor); ok {
		out.At, _ = resolveAnchor(a, isEvent) // the check has told what is wrong
	} else {
		out.At.Offset = get(r, in, e.at, Duration(0))
	}
	if e.network != nil {
		out.Network = r.resolveOverlay(in, e.network)
		out.Network.Verify = Verify{Off: true}
	}
	if e.kill != nil {
		out.Kill = r.resolveChoice(in, e.kill)
	}
	if e.pause != nil {
		out.Pause = r.resolveChoice(in, e.pause)
	}
	return out
}

func (r *resolver) resolveChoice(in *scope, s *choiceSyntax) *Choice {
	out := &Choice{
		Group: s.group.text,
		Share: optional[Share](r, in, s.share),
		Count: int(get(r, in, s.count, int64(0))),
		For:   get(r, in, s.duration, Duration(0)),
	}
	size := -1
	if i, ok := r.doc.groupIndex[out.Group]; ok && i < len(r.groups) && !r.tainted {
		size = r.groups[i].Instances
	}
	if size >= 0 && out.Count > size {
		r.faults.faultf(s.count.at, "the group `%s` has %d instances, fewer than %d", out.Group, size, out.Count)
	}
	for _, v := range s.indices {
		index := int(get(r, in, v, int64(0)))
		if size >= 0 && index >= size {
			r.faults.faultf(v.at, "the group `%s` has no instance %d: they count from 0 to %d", out.Group, index, size-1)
		}
		out.Indices = append(out.Indices, index)
	}
	if out.Share == nil && out.Count == 0 && len(out.Indices) == 0 {
		all := Share(1)
		out.Share = &all
	}
	return out
}
