package pipelines

import (
	"fmt"
	"time"

	"gopkg.in/yaml.v3"
)

// shapeSyntax is how a link behaves.
type shapeSyntax struct {
	latency, jitter, distribution value
	loss, lossCorrelation         value
	duplicate, reorder, corrupt   value
	bandwidth, queue, policy      value
}

// networkSyntax is the state of the data network, of a stage or (without verify and regions) of an event.
type networkSyntax struct {
	located
	shape   *defaultSyntax
	links   []linkSyntax
	inbound []blockSyntax
	nat     []natSyntax
	access  value
	regions value
	verify  *verifySyntax
}

type defaultSyntax struct {
	located
	shapeSyntax
}

type linkSyntax struct {
	located
	shapeSyntax
	between  []name
	from, to name
}

// shapeFields are the keys of a shape, wherever it is kept.
func shapeFields[T any](at func(*T) *shapeSyntax) []field[T] {
	of := func(pick func(*shapeSyntax) *value) func(*T) *value {
		return func(t *T) *value { return pick(at(t)) }
	}
	return []field[T]{
		key("latency", "How long a packet takes, one way.", durationForm, of(func(s *shapeSyntax) *value { return &s.latency })),
		key("jitter", "By how much the latency varies.", durationForm, of(func(s *shapeSyntax) *value { return &s.jitter })),
		key("distribution", "How the jitter is distributed.", enumForm("uniform", "normal", "pareto"),
			of(func(s *shapeSyntax) *value { return &s.distribution })).defaultsTo("normal"),
		key("loss", "Share of packets that are lost.", shareForm, of(func(s *shapeSyntax) *value { return &s.loss })),
		key("lossCorrelation", "How much a loss depends on the one before.", shareForm,
			of(func(s *shapeSyntax) *value { return &s.lossCorrelation })),
		key("duplicate", "Share of packets that arrive twice.", shareForm, of(func(s *shapeSyntax) *value { return &s.duplicate })),
		key("reorder", "Share of packets that overtake others; needs a latency.", shareForm,
			of(func(s *shapeSyntax) *value { return &s.reorder })),
		key("corrupt", "Share of packets with a bit turned.", shareForm, of(func(s *shapeSyntax) *value { return &s.corrupt })),
		key("bandwidth", "The most that passes, in bits per second.", bandwidthForm,
			of(func(s *shapeSyntax) *value { return &s.bandwidth })).defaultsTo("unlimited"),
		key("queue", "How many packets wait before further ones are dropped.", intForm(1),
			of(func(s *shapeSyntax) *value { return &s.queue })),
		key("policy", "Whether packets pass; `reject` tells the sender, `drop` does not.", enumForm("accept", "reject", "drop"),
			of(func(s *shapeSyntax) *value { return &s.policy })).defaultsTo("accept"),
	}
}

var defaultObject = &object[defaultSyntax]{
	name: "shape", doc: "How a link behaves, in one direction.",
	fields: shapeFields(func(s *defaultSyntax) *shapeSyntax { return &s.shapeSyntax }),
}

var linkObject = &object[linkSyntax]{
	name: "link", doc: "The shape of what goes between groups or regions, laid over what stands above it. A name is a group's; when no group has it, a region's.",
	fields: append([]field[linkSyntax]{
		key("between", "Two groups or regions: both directions.", list[name]{elem: endName}, func(l *linkSyntax) *[]name { return &l.between }),
		key("from", "Where packets come from: one direction.", endName, func(l *linkSyntax) *name { return &l.from }),
		key("to", "Where packets go.", endName, func(l *linkSyntax) *name { return &l.to }),
	}, shapeFields(func(l *linkSyntax) *shapeSyntax { return &l.shapeSyntax })...),
	check: checkLink,
}

func checkLink(d *decoder, l *linkSyntax) {
	switch {
	case l.has("between") && (l.has("from") || l.has("to")):
		d.faults.faultf(l.key("between"), "a link has either `between` or `from` and `to`")
	case l.has("between") && len(l.between) != 2:
		d.faults.faultf(l.key("between"), "`between` names two groups or regions, here are %d", len(l.between))
	case !l.has("between") && !(l.has("from") && l.has("to")):
		d.faults.faultf(l.place, "a link needs `between: [a, b]`, or `from` and `to`")
	}
}

type blockSyntax struct {
	located
	groups []name
	policy value
}

var blockObject = &object[blockSyntax]{
	name: "inbound", doc: "Refuses new connections into groups.",
	fields: []field[blockSyntax]{
		key("groups", "The groups.", list[name]{elem: groupName, orOne: true}, func(b *blockSyntax) *[]name { return &b.groups }).required(),
		key("policy", "What becomes of a new connection.", enumForm("accept", "reject", "drop"),
			func(b *blockSyntax) *value { return &b.policy }).required(),
	},
}

type natSyntax struct {
	located
	groups      []name
	natType     value
	perInstance value
	timeout     value
}

// defaultNATTimeout is the least that RFC 4787 allows.
const defaultNATTimeout = Duration(2 * time.Minute)

var natObject = &object[natSyntax]{
	name: "nat", doc: "Puts groups behind a router that translates addresses (NAT). Instances behind the same router reach each other directly; others see the router's address, and reach what its type lets in. It is a router for IPv4: over IPv6 nothing gets past it.",
	fields: []field[natSyntax]{
		key("groups", "The groups.", list[name]{elem: groupName, orOne: true}, func(n *natSyntax) *[]name { return &n.groups }).required(),
		key("type", "How the router translates.", enumForm("full-cone", "restricted", "port-restricted", "symmetric"),
			func(n *natSyntax) *value { return &n.natType }).required(),
		key("perInstance", "Whether each instance has a router of its own, instead of one for all.", boolForm,
			func(n *natSyntax) *value { return &n.perInstance }).defaultsTo("false"),
		key("timeout", "How long a mapping of UDP stays when nothing goes out by it. Those of TCP stay as long as RFC 5382 asks.", periodForm,
			func(n *natSyntax) *value { return &n.timeout }).defaultsTo(defaultNATTimeout.String()),
	},
}

// verifySyntax says how a network stage is proved; off when it was `false`.
type verifySyntax struct {
	located
	off              bool
	pairs, tolerance value
}

// What is proved of a network when nothing else is said.
const (
	defaultPairs     = 50
	defaultTolerance = Share(0.1)
	maxPairs         = 10_000
)

var verifyObject = &object[verifySyntax]{
	name: "verify", doc: "How a network stage is proved before it ends; `false` skips it.",
	fields: []field[verifySyntax]{
		key("pairs", "How many pairs of instances are probed.", &scalar{kind: kindInt, min: ptr(int64(1)), allow: atMost(maxPairs)},
			func(v *verifySyntax) *value { return &v.pairs }).defaultsTo(fmt.Sprint(defaultPairs)),
		key("tolerance", "How far what is achieved may be from what is asked.", shareForm,
			func(v *verifySyntax) *value { return &v.tolerance }).defaultsTo(defaultTolerance.String()),
	},
}

var networkFields = []field[networkSyntax]{
	key("default", "The shape between any two instances.", pointer[defaultSyntax]{defaultObject},
		func(n *networkSyntax) **defaultSyntax { return &n.shape }),
	key("links", "Shapes between groups or regions, each laid over the ones above it.", list[linkSyntax]{elem: linkObject},
		func(n *networkSyntax) *[]linkSyntax { return &n.links }),
	key("inbound", "Refuses new connections into groups: one mapping or a list.", list[blockSyntax]{elem: blockObject, orOne: true},
		func(n *networkSyntax) *[]blockSyntax { return &n.inbound }),
	key("nat", "Puts groups behind routers: one mapping or a list.", list[natSyntax]{elem: natObject, orOne: true},
		func(n *networkSyntax) *[]natSyntax { return &n.nat }),
	key("access", "Whether the data network leads out.", enumForm(AccessNone, AccessInternet),
		func(n *networkSyntax) *value { return &n.access }).defaultsTo(AccessNone),
}

var networkObject = &object[networkSyntax]{
	name: "network", doc: "The whole state of the data network: it replaces the state before it.",
	fields: append(networkFields[:len(networkFields):len(networkFields)],
		key("regions", "A CSV file with the one-way latency from the region of the row to that of the column, relative to this file.",
			&scalar{kind: kindString, literal: true, allow: notEmpty}, func(n *networkSyntax) *value { return &n.regions }),
		key("verify", "How the network is proved; `false` skips it.", pointer[verifySyntax]{verifyForm},
			func(n *networkSyntax) **verifySyntax { return &n.verify }),
	),
}

// verifyForm takes a mapping, or `true` or `false`.
var verifyForm = either[verifySyntax]{
	converted[value, verifySyntax]{&scalar{kind: kindBool, literal: true},
		func(v value) verifySyntax { return verifySyntax{off: v.literal == false} }},
	verifyObject,
}

// overlayObject is the network of an event.
var overlayObject = &object[networkSyntax]{
	name: "network change", doc: "Laid over the state of the data network, and taken away again after the event's `for`.",
	fields: networkFields,
}

// runSyntax opens the gate.
type runSyntax struct {
	located
	groups   []name
	testCase value
	params   []entry[value]
	success  value
	failFast value
	events   []eventSyntax
}

var runObject = &object[runSyntax]{
	name: "run", doc: "Opens the gate for groups, and ends when every instance has an outcome.",
	fields: []field[runSyntax]{
		key("case", "The test case of the plan.", &scalar{kind: kindString, allow: notEmpty},
			func(r *runSyntax) *value { return &r.testCase }).required(),
		key("groups", "The groups that take part.", list[name]{elem: groupName}, func(r *runSyntax) *[]name { return &r.groups }).
			defaultsTo("all that are placed by then"),
		key("params", "Parameters, laid over those of each group.", paramsForm, func(r *runSyntax) *[]entry[value] { return &r.params }),
		key("success", "Share of the instances that must succeed.", shareForm, func(r *runSyntax) *value { return &r.success }).defaultsTo("100%"),
		key("failFast", "Whether the first failure ends the stage.", boolForm, func(r *runSyntax) *value { return &r.failFast }).defaultsTo("false"),
		key("events", "What happens while it runs.", list[eventSyntax]{elem: eventObject}, func(r *runSyntax) *[]eventSyntax { return &r.events }),
	},
}

// eventSyntax is something done to a running stage.
type eventSyntax struct {
	located
	name     name
	at       value
	duration value
	network  *networkSyntax
	kill     *choiceSyntax
	pause    *choiceSyntax
	restart  value
}

var eventObject = &object[eventSyntax]{
	name: "event", doc: "Something done to a running stage: exactly one of `network`, `kill`, `pause`.",
	fields: []field[eventSyntax]{
		key("name", "A name that other events and `metrics.<name>.<before|during|after>` can use.", eventName, func(e *eventSyntax) *name { return &e.name }),
		key("at", "When: `30s` after the start; `half-done`, when every instance of the stage has signalled that state; `split` or `split.healed`, when that event began or ended. An offset may follow: `split.healed + 10s`.",
			form[value](anchorForm{}), func(e *eventSyntax) *value { return &e.at }).required(),
		key("for", "How long a change of the network stays.", periodForm, func(e *eventSyntax) *value { return &e.duration }).
			defaultsTo("until the stage ends"),
		key("network", "A change of the data network.", pointer[networkSyntax]{overlayObject}, func(e *eventSyntax) **networkSyntax { return &e.network }),
		key("kill", "Instances whose processes are killed.", pointer[choiceSyntax]{killObject}, func(e *eventSyntax) **choiceSyntax { return &e.kill }),
		key("restart", "After what time a killed instance is started again.", periodForm, func(e *eventSyntax) *value { return &e.restart }).
			defaultsTo("never"),
		key("pause", "Instances whose processes are stopped for a while.", pointer[choiceSyntax]{pauseObject}, func(e *eventSyntax) **choiceSyntax { return &e.pause }),
	},
	check: func(d *decoder, e *eventSyntax) {
		exactlyOne(d, &e.located, "an event", []string{"network", "kill", "pause"})
		if e.has("for") && e.has("pause") {
			d.faults.faultf(e.key("for"), "`for` belongs into `pause`: {group: …, for: …}")
		} else if e.has("for") && e.has("kill") {
			d.faults.faultf(e.key("for"), "`for` goes with `network`; a killed instance comes back after `restart`")
		}
		if e.has("restart") && !e.has("kill") {
			d.faults.faultf(e.key("restart"), "`restart` goes with `kill`")
		}
	},
}

// choiceSyntax draws instances of a group.
type choiceSyntax struct {
	located
	group                  name
	share, count, duration value
	indices                []value
}

var choiceFields = []field[choiceSyntax]{
	key("group", "The group.", groupName, func(c *choiceSyntax) *name { return &c.group }).required(),
	key("share", "A share of its instances, at least one, drawn from the seed.", shareForm, func(c *choiceSyntax) *value { return &c.share }).defaultsTo("100%"),
	key("count", "A number of its instances, drawn from the seed.", intForm(1), func(c *choiceSyntax) *value { return &c.count }),
	key("indices", "These instances, counting from 0.", list[value]{elem: intForm(0)}, func(c *choiceSyntax) *[]value { return &c.indices }),
}

var killObject = &object[choiceSyntax]{
	name: "choice", doc: "Instances of a group: at most one of `share`, `count`, `indices`.",
	fields: choiceFields, check: checkChoice,
}

var pauseObject = &object[choiceSyntax]{
	name: "pause", doc: "Instances of a group, for a while: at most one of `share`, `count`, `indices`.",
	fields: append(choiceFields[:len(choiceFields):len(choiceFields)],
		key("for", "How long.", periodForm, func(c *choiceSyntax) *value { return &c.duration }).required()),
	check: checkChoice,
}

func checkChoice(d *decoder, c *choiceSyntax) {
	found := 0
	for _, k := range []string{"share", "count", "indices"} {
		if c.has(k) {
			found++
		}
	}
	if found > 1 {
		d.faults.faultf(c.place, "at most one of `share`, `count` and `indices` can be given")
	}
	if c.has("indices") && len(c.indices) == 0 {
		d.faults.faultf(c.key("indices"), "`indices` names no instance")
	}
}

// anchorForm is a moment of a run: the literal is an Anchor, or the value is an expression that gives a duration.
type anchorForm struct{}

var anchorScalar = &scalar{kind: kindDuration, allow: notNegative}

func (anchorForm) decode(d *decoder, raw *yaml.Node) value {
	n := raw
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || n.Value == "" || n.Value[0] == '=' {
		return anchorScalar.decode(d, raw)
	}
	v := value{at: d.at(raw), form: anchorScalar}
	anchor, err := parseAnchor(n.Value)
	if err != nil {
		d.fault(raw, "%v", err)
		return v
	}
	v.literal = anchor
	return v
}

func (anchorForm) describe() *description { return &description{kind: "moment"} }
