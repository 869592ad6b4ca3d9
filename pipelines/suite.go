package pipelines

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Suite is a set of pipelines that run on a schedule.
type Suite struct {
	Name     string        `json:"name"`
	File     string        `json:"file,omitempty"` // relative to the repository root
	Schedule SuiteSchedule `json:"schedule,omitzero"`
	// Pipelines stand in the order of the file.
	Pipelines []SuitePipeline `json:"pipelines"`
	Compare   *Compare        `json:"compare,omitempty"`
	Notify    *Notify         `json:"notify,omitempty"`
}

// SuiteSchedule says when a suite runs; an empty Cron: only when triggered.
type SuiteSchedule struct {
	Cron     string   `json:"cron,omitempty"`
	Timezone string   `json:"timezone,omitempty"`
	Overlap  string   `json:"overlap,omitempty"` // skip | buffer-one | buffer-all | cancel-other | terminate-other | allow-all
	CatchUp  Duration `json:"catchUp,omitempty"`
	// Jitter is by how much at most, chosen anew each time, a turn begins later than it is due.
	Jitter Duration `json:"jitter,omitempty"`
}

// SuitePipeline is one pipeline of a suite.
type SuitePipeline struct {
	File      string            `json:"file"` // relative to the repository root
	Set       map[string]string `json:"set,omitempty"`
	OnFailure string            `json:"onFailure"` // OnFailureAbort or OnFailureContinue
}

// Notify says who is told.
type Notify struct {
	// Webhook is a URL, or `=` and an expression over `secrets`: see URL.
	Webhook string   `json:"webhook"`
	On      []string `json:"on"` // failed | invalid | regressed | recovered | passed
	// Secret is `=` and an expression over `secrets`, the key that calls are signed with; empty: they are not. See Key.
	Secret string `json:"secret,omitempty"`
}

// URL works out Webhook with the secrets that it names. The result is as secret as they are.
func (n Notify) URL(secret func(name string) (string, bool)) (string, error) {
	text, err := withSecrets("webhook", n.Webhook, secret)
	if err == nil && checkWebhook(text) != nil {
		return "", fmt.Errorf("working out the webhook `%s`: it is not an http or https URL", clip(n.Webhook))
	}
	return text, err
}

// Key works out Secret with the secrets that it names; empty when calls are not to be signed.
func (n Notify) Key(secret func(name string) (string, bool)) (string, error) {
	return withSecrets("webhook's secret", n.Secret, secret)
}

// withSecrets works out a text that may be `=` and an expression over secrets.
func withSecrets(what, text string, secret func(name string) (string, bool)) (string, error) {
	if text == "" || text[0] != '=' {
		return text, nil
	}
	none := func(string) bool { return false }
	c, faults := compile(text[1:], kindString, none, scopeNames{newScope(nil, nil, nil), contextSecret})
	if faults != nil {
		return "", fmt.Errorf("working out the %s `%s`: %s", what, clip(text), faults[0].message)
	}
	for _, s := range c.slots {
		if _, ok := secret(s.segments[0]); !ok && !s.presence {
			return "", fmt.Errorf("working out the %s: the secret %s is not set", what, s.segments[0])
		}
	}
	v, _, err := c.eval(func(r reference) (any, bool) { return secret(r.segments[0]) })
	if err != nil {
		return "", fmt.Errorf("working out the %s `%s`: %w", what, clip(text), err)
	}
	result, _ := v.(string)
	return result, nil
}

// ParseSuite reads a suite without looking at its pipelines. file is the suite's path relative to the repository root.
// When something is wrong the error is Faults.
func ParseSuite(file string, data []byte) (*Suite, error) {
	r := &reader{faults: &collector{}, escapes: func(string) bool { return false }}
	s := r.parseSuite(newSource(file, string(data), 0))
	return s, r.faults.err()
}

// LoadSuite reads a suite, and loads each of its pipelines with what it sets, so that every fault of all of them shows.
func LoadSuite(file string, o Options) (*Suite, error) {
	disk, rel, err := openDisk(file, o.Root)
	if err != nil {
		return nil, err
	}
	defer disk.close()
	r := &reader{faults: &collector{}, read: disk.read, escapes: disk.escapes}
	text, err := disk.read(rel)
	if err != nil {
		return nil, Faults{{File: rel, Message: "can't be read: " + cause(err)}}
	}
	s := r.parseSuite(newSource(rel, text, 0))
	if err := r.faults.err(); err != nil {
		return nil, err
	}
	all := &collector{}
	for i, p := range s.Pipelines {
		full := filepath.Join(disk.root.Name(), filepath.FromSlash(p.File))
		_, err := Load(full, Options{Root: disk.root.Name(), Set: p.Set, Getenv: o.Getenv})
		var faults Faults
		if err != nil && !errors.As(err, &faults) {
			return nil, fmt.Errorf("loading %s: %w", p.File, err)
		}
		for _, f := range faults {
			if f.order < 0 {
				f.File = p.File + ": set"
			}
			f.order += (i + 1) * (maxFiles + 2)
			all.add(f)
		}
	}
	return s, all.err()
}

// parseSuite reads and checks the text of a suite.
func (r *reader) parseSuite(src *source) *Suite {
	node := src.parse(r.faults)
	if node == nil {
		return nil
	}
	if documentKind(node) == "pipeline" {
		r.faults.faultf(src.at(node.Line, node.Column), "this is a pipeline, not a suite")
		return nil
	}
	d := &decoder{src: src, faults: r.faults}
	syntax := suiteObject.decode(d, node)
	doc := &Document{}
	in := newScope(doc, src, nil)
	for _, e := range d.exprs {
		var faults []expressionFault
		e.compiled, faults = compile(e.text, e.want, doc.isGroup, scopeNames{in, e.context})
		for _, f := range faults {
			r.faults.suggestf(e.placeOf(f.offset), f.suggestion, "%s", f.message)
		}
	}
	if len(r.faults.faults) > 0 {
		return nil
	}
	return r.resolveSuite(doc, in, &syntax)
}

func (r *reader) resolveSuite(doc *Document, in *scope, s *suiteSyntax) *Suite {
	v := &resolver{doc: doc, faults: r.faults, values: map[*scope]map[string]any{in: {}}}
	out := &Suite{Name: s.name.text, File: in.src.path}
	if s.schedule != nil {
		out.Schedule = SuiteSchedule{
			Cron:     get(v, in, s.schedule.cron, ""),
			Timezone: get(v, in, s.schedule.timezone, "UTC"),
			Overlap:  get(v, in, s.schedule.overlap, "skip"),
			CatchUp:  get(v, in, s.schedule.catchUp, Duration(60e9)),
			Jitter:   get(v, in, s.schedule.jitter, Duration(0)),
		}
	}
	if len(s.pipelines) == 0 {
		r.faults.faultf(s.key("pipelines"), "the suite has no pipeline")
	}
	for _, p := range s.pipelines {
		file, _ := r.join(r.faults, p.file.at, get(v, in, p.file, ""))
		out.Pipelines = append(out.Pipelines, SuitePipeline{
			File: file, Set: v.textMap(in, p.set), OnFailure: get(v, in, p.onFailure, OnFailureAbort)})
	}
	if s.compare != nil {
		out.Compare = v.resolveCompare(in, s.compare)
	}
	if s.notify != nil {
		out.Notify = &Notify{On: v.textList(in, s.notify.on)}
		if len(out.Notify.On) == 0 {
			out.Notify.On = []string{"failed", "regressed", "recovered"}
		}
		if e := s.notify.webhook.expr; e != nil {
			out.Notify.Webhook = "=" + e.text
		} else {
			out.Notify.Webhook = get(v, in, s.notify.webhook, "")
		}
		if e := s.notify.secret.expr; e != nil {
			out.Notify.Secret = "=" + e.text
		}
	}
	return out
}
