package pipelines

// resolveNetwork works out the whole state that a network stage sets.
func (r *resolver) resolveNetwork(in *scope, s *networkSyntax) *Network {
	out := r.resolveOverlay(in, s)
	out.Access = get(r, in, s.access, AccessNone)
	out.Verify = Verify{Pairs: defaultPairs, Tolerance: defaultTolerance}
	if s.verify != nil && s.verify.off {
		out.Verify = Verify{Off: true}
	} else if s.verify != nil {
		out.Verify.Pairs = int(get(r, in, s.verify.pairs, int64(defaultPairs)))
		out.Verify.Tolerance = get(r, in, s.verify.tolerance, defaultTolerance)
	}
	text, ok := s.regions.literal.(string)
	if !ok {
		return out
	}
	file, ok := r.doc.files.join(&collector{}, s.regions.at, text) // its faults are told by the check
	if matrix := r.doc.regions[file]; ok && matrix != nil {
		named := make(map[string]bool, len(r.doc.byRegion))
		for region := range r.doc.byRegion {
			named[region] = true
		}
		out.Regions, out.Matrix = file, matrix.of(named)
		for _, row := range out.Matrix {
			r.countLinks(s, len(row))
		}
	}
	return out
}

// resolveOverlay works out what stages and events have in common.
func (r *resolver) resolveOverlay(in *scope, s *networkSyntax) *Network {
	out := &Network{Access: get(r, in, s.access, "")}
	if s.shape != nil {
		out.Default = r.resolveShape(in, &s.shape.shapeSyntax)
	}
	for i := range s.links {
		for _, l := range r.resolveLink(in, s, &s.links[i]) {
			l.Row = i + 1
			out.Links = append(out.Links, l)
		}
	}
	for _, b := range s.inbound {
		out.Inbound = append(out.Inbound, Block{Groups: texts(b.groups), Policy: get(r, in, b.policy, "")})
	}
	for _, n := range s.nat {
		out.NAT = append(out.NAT, NAT{
			Groups: texts(n.groups), Type: get(r, in, n.natType, ""), PerInstance: get(r, in, n.perInstance, false),
			Timeout: get(r, in, n.timeout, defaultNATTimeout),
		})
	}
	return out
}

// resolveLink turns a link between groups or regions into one per direction and pair of groups.
func (r *resolver) resolveLink(in *scope, net *networkSyntax, l *linkSyntax) []Link {
	shape := r.resolveShape(in, &l.shapeSyntax)
	ends := [][2]string{{l.from.text, l.to.text}}
	if len(l.between) == 2 {
		a, b := l.between[0].text, l.between[1].text
		ends = [][2]string{{a, b}, {b, a}}
		if a == b {
			ends = ends[:1]
		}
	}
	var links []Link
	seen := map[[2]string]bool{}
	for _, end := range ends {
		from, to := r.doc.groupsOf(end[0]), r.doc.groupsOf(end[1])
		if !r.countLinks(net, len(from)*len(to)) {
			return nil
		}
		for _, f := range from {
			for _, t := range to {
				if !seen[[2]string{f, t}] {
					seen[[2]string{f, t}] = true
					links = append(links, Link{From: f, To: t, Shape: shape})
				}
			}
		}
	}
	return links
}

// countLinks counts towards the limit, and says whether it still holds.
func (r *resolver) countLinks(net *networkSyntax, n int) bool {
	before := r.links
	r.links += n
	if before <= maxLinks && r.links > maxLinks {
		r.faults.faultf(net.place, "the networks of the pipeline have more than %d links between groups together", maxLinks)
	}
	return r.links <= maxLinks
}

func (r *resolver) resolveShape(in *scope, s *shapeSyntax) Shape {
	return Shape{
		Latency:      optional[Duration](r, in, s.latency),
		Jitter:       optional[Duration](r, in, s.jitter),
		Distribution: get(r, in, s.distribution, ""),
		Loss:         optional[Share](r, in, s.loss),
		LossCorr:     optional[Share](r, in, s.lossCorrelation),
		Duplicate:    optional[Share](r, in, s.duplicate),
		Reorder:      optional[Share](r, in, s.reorder),
		Corrupt:      optional[Share](r, in, s.corrupt),
		Bandwidth:    optional[Bandwidth](r, in, s.bandwidth),
		Queue:        optional[int64](r, in, s.queue),
		Policy:       get(r, in, s.policy, ""),
	}
}
