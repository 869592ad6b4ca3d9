package pipelines

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// stageItem is an element of `stages`: a stage or an include.
type stageItem struct {
	stage   *stageSyntax
	include *includeSyntax
}

// stageItemForm tells an include by its key.
type stageItemForm struct{}

func (stageItemForm) decode(d *decoder, raw *yaml.Node) stageItem {
	n := raw
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		if n.Content[i].Value == "include" {
			v := includeObject.decode(d, raw)
			return stageItem{include: &v}
		}
	}
	v := stageObject.decode(d, raw)
	return stageItem{stage: &v}
}

func (stageItemForm) describe() *description {
	return &description{options: []*description{stageObject.describe(), includeObject.describe()}}
}

// includeSyntax splices the stages of another file.
type includeSyntax struct {
	located
	file value
	with []entry[value]
}

var includeObject = &object[includeSyntax]{
	name: "include", doc: "Splices the stages of another file in its place.", context: contextStage,
	fields: []field[includeSyntax]{
		key("include", "The file, relative to this one; it can't lie outside the repository root.", &scalar{kind: kindString, literal: true, allow: notEmpty},
			func(i *includeSyntax) *value { return &i.file }).required(),
		key("with", "Values of the file's parameters.",
			mapping[value]{what: "parameter", keys: identifierPattern, rule: identifierRule, elem: withForm{}},
			func(i *includeSyntax) *[]entry[value] { return &i.with }),
	},
}

// withForm is a literal of a type that only the included file tells, or an expression.
type withForm struct{}

func (withForm) decode(d *decoder, raw *yaml.Node) value {
	n := raw
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && strings.HasPrefix(n.Value, "=") {
		return textForm.decode(d, raw)
	}
	return anyForm{}.decode(d, raw)
}

func (withForm) describe() *description { return &description{kind: "any"} }

// stageSyntax is one stage.
type stageSyntax struct {
	located
	name      name
	needs     []name
	when      *expression
	timeout   value
	retry     *retrySyntax
	onFailure value
	holdFor   value

	build    []entry[sourceSyntax]
	schedule *scheduleSyntax
	network  *networkSyntax
	run      *runSyntax
	collect  *collectSyntax
}

var kindKeys = []string{string(KindBuild), string(KindSchedule), string(KindNetwork), string(KindRun), string(KindCollect)}

var stageObject = &object[stageSyntax]{
	name: "stage", doc: "One step. It has exactly one of `build`, `schedule`, `network`, `run`, `collect`.", context: contextStage,
	fields: []field[stageSyntax]{
		key("name", "The stage's name, for `needs`, `stages.<name>` and people.", stageName,
			func(s *stageSyntax) *name { return &s.name }).defaultsTo("the kind, with a number when it is taken: `run`, `run-2`"),
		key("build", "Makes named artifacts. Each is addressed by the hash of what went in, and not built twice.",
			mapping[sourceSyntax]{what: "artifact", keys: namePattern, rule: nameRule, elem: sourceObject},
			func(s *stageSyntax) *[]entry[sourceSyntax] { return &s.build }),
		key("schedule", "Brings instances to the gate: placed, addressed, nothing of the plan started.", pointer[scheduleSyntax]{scheduleObject},
			func(s *stageSyntax) **scheduleSyntax { return &s.schedule }),
		key("network", "Sets the whole state of the data network, and proves it.", pointer[networkSyntax]{networkObject},
			func(s *stageSyntax) **networkSyntax { return &s.network }),
		key("run", "Opens the gate, and ends when every instance has an outcome.", pointer[runSyntax]{runObject},
			func(s *stageSyntax) **runSyntax { return &s.run }),
		key("collect", "Archives outputs, computes metrics, checks what must hold.", pointer[collectSyntax]{collectObject},
			func(s *stageSyntax) **collectSyntax { return &s.collect }),
		key("needs", "The stages that end before this one begins; `[]` begins at once.", list[name]{elem: stageName, orOne: true},
			func(s *stageSyntax) *[]name { return &s.needs }).defaultsTo("the stage before"),
		key("when", "Whether the stage runs, asked when its turn comes. Without it a stage runs only when all that it needs passed.",
			condition{contextVerdict}, func(s *stageSyntax) **expression { return &s.when }),
		key("timeout", "Bounds one attempt.", periodForm, func(s *stageSyntax) *value { return &s.timeout }).
			defaultsTo(DefaultTimeout.String()),
		key("retry", "How often and how it is tried again.", pointer[retrySyntax]{retryObject},
			func(s *stageSyntax) **retrySyntax { return &s.retry }).defaultsTo("one attempt"),
		key("onFailure", "When it did not pass: `abort` skips what follows, `hold` keeps the placement for `resume`, `continue` goes on.",
			enumForm(OnFailureAbort, OnFailureHold, OnFailureContinue), func(s *stageSyntax) *value { return &s.onFailure }).
			defaultsTo(OnFailureAbort),
		key("holdFor", "How long `onFailure: hold` waits for somebody.", periodForm,
			func(s *stageSyntax) *value { return &s.holdFor }).defaultsTo(DefaultHoldFor.String()),
	},
	check: func(d *decoder, s *stageSyntax) {
		exactlyOne(d, &s.located, "a stage", kindKeys)
		if s.has("holdFor") && (s.onFailure.expr == nil && s.onFailure.literal != OnFailureHold) {
			d.faults.faultf(s.key("holdFor"), "`holdFor` only has a meaning with `onFailure: hold`")
		}
		if s.has("build") && len(s.build) == 0 {
			d.faults.faultf(s.key("build"), "`build` names no artifact")
		}
	},
}

// exactlyOne adds a fault unless one of the keys was written.
func exactlyOne(d *decoder, l *located, what string, keys []string) {
	var found []string
	for _, k := range keys {
		if l.has(k) {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 0:
		d.faults.faultf(l.place, "%s needs one of %s", what, strings.Join(keys, ", "))
	case len(found) > 1:
		d.faults.faultf(l.key(found[1]), "%s has exactly one of %s: here are %s", what, strings.Join(keys, ", "), strings.Join(found, " and "))
	}
}

// kind says which kind the stage is; empty when it isn't one.
func (s *stageSyntax) kind() Kind {
	for _, k := range kindKeys {
		if s.has(k) {
			return Kind(k)
		}
	}
	return ""
}

// What holds for a stage that says nothing else.
const (
	// DefaultTimeout bounds an attempt of a stage without `timeout`.
	DefaultTimeout = Duration(3600e9)
	// DefaultHoldFor is how long a held placement waits without `holdFor`.
	DefaultHoldFor = Duration(4 * 3600e9)
)

// retrySyntax is a retry policy.
type retrySyntax struct {
	located
	attempts, initial, factor, max value
	on                             []value
}

// What can be retried.
const (
	retryInvalid = "invalid"
	retryFailed  = "failed"
)

var retryObject = &object[retrySyntax]{
	name: "retry", doc: "How a stage is tried again.",
	fields: []field[retrySyntax]{
		key("attempts", "How often it is tried, the first time counted in.", &scalar{kind: kindInt, min: ptr(int64(1)), allow: atMost(100)},
			func(r *retrySyntax) *value { return &r.attempts }).required(),
		key("initial", "The wait before the second attempt.", durationForm,
			func(r *retrySyntax) *value { return &r.initial }).defaultsTo("1s"),
		key("factor", "By how much each wait is longer than the one before.", &scalar{kind: kindFloat, allow: between(1, 100)},
			func(r *retrySyntax) *value { return &r.factor }).defaultsTo("2"),
		key("max", "The longest wait.", durationForm, func(r *retrySyntax) *value { return &r.max }).defaultsTo("1m"),
		key("on", "The verdicts that are retried. A failure is an answer, and is retried only when asked for.",
			list[value]{elem: enumForm(retryInvalid, retryFailed), orOne: true}, func(r *retrySyntax) *[]value { return &r.on }).
			defaultsTo("[invalid]"),
	},
}

func atMost(most int64) func(any) error {
	return func(v any) error {
		if n, ok := v.(int64); ok && n > most {
			return fmt.Errorf("%d is too large: at most %d", n, most)
		}
		return nil
	}
}

func between(least, most float64) func(any) error {
	return func(v any) error {
		if f, ok := v.(float64); ok && !(f >= least && f <= most) {
			return fmt.Errorf("%s is outside of %s to %s", textOf(f), textOf(least), textOf(most))
		}
		return nil
	}
}

// scheduleSyntax places groups.
type scheduleSyntax struct {
	located
	groups []name
}

var scheduleObject = &object[scheduleSyntax]{
	name: "schedule", doc: "Places groups. What is placed already is kept.",
	fields: []field[scheduleSyntax]{
		key("groups", "The groups to place.", list[name]{elem: groupName}, func(s *scheduleSyntax) *[]name { return &s.groups }).
			defaultsTo("all"),
	},
}
