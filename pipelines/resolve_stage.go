package pipelines

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// resolveStages works out the stages, or with Only the ones that are kept.
func (r *resolver) resolveStages() []Stage {
	kept := r.doc.kept()
	var all []Stage
	for i, n := range r.doc.stages {
		if kept.has(i) && !r.faults.full() {
			one := r.resolveStage(n)
			for _, need := range r.doc.needed(n, kept) {
				one.Needs = append(one.Needs, r.doc.stages[need].name)
			}
			all = append(all, one)
		}
	}
	return all
}

func (r *resolver) resolveStage(n *stageNode) Stage {
	s, in := n.syntax, n.scope
	out := Stage{
		Name: n.name, Kind: n.kind,
		When:      r.frozen(in, s.when),
		Timeout:   get(r, in, s.timeout, DefaultTimeout),
		Retry:     r.resolveRetry(in, s.retry),
		OnFailure: get(r, in, s.onFailure, OnFailureAbort),
		Position:  fmt.Sprintf("%s:%d", s.place.src.path, s.place.line),
	}
	if out.OnFailure == OnFailureHold {
		out.HoldFor = get(r, in, s.holdFor, DefaultHoldFor)
	} else if s.holdFor.written() && s.onFailure.expr == nil {
		r.tainted = true
	}
	switch {
	case s.has("build"):
		out.Build = map[string]Source{}
		for _, a := range s.build {
			out.Build[a.key] = r.resolveSource(in, a.value)
		}
	case s.schedule != nil:
		out.Schedule = &Schedule{Groups: n.scheduled(r.doc)}
	case s.network != nil:
		out.Network = r.resolveNetwork(in, s.network)
	case s.run != nil:
		out.Run = r.resolveRun(n)
	case s.collect != nil:
		out.Collect = r.resolveCollect(in, s.collect)
	}
	return out
}

func (r *resolver) resolveRetry(in *scope, s *retrySyntax) Retry {
	if s == nil {
		return Retry{}
	}
	out := Retry{
		Attempts: int(get(r, in, s.attempts, int64(1))),
		Initial:  get(r, in, s.initial, Duration(1e9)),
		Factor:   get(r, in, s.factor, 2.0),
		Max:      get(r, in, s.max, Duration(60e9)),
		On:       r.textList(in, s.on),
	}
	if len(out.On) == 0 {
		out.On = []string{retryInvalid}
	}
	return out
}

// path works out a path of a source, relative to the file that it stands in, into one relative to the root.
func (r *resolver) path(in *scope, v value, fallback string) string {
	text := get(r, in, v, fallback)
	at := v.at
	if at.src == nil {
		at = in.src.at(1, 1)
	}
	joined, ok := r.doc.files.join(r.faults, at, text)
	if !ok {
		r.tainted = true
	}
	return joined
}

func (r *resolver) resolveSource(in *scope, s sourceSyntax) Source {
	switch {
	case s.golang != nil:
		return Source{Go: r.resolveGo(in, s.golang)}
	case s.image.written():
		return Source{Image: &ImageSource{Ref: get(r, in, s.image, "")}}
	case s.dockerfile != nil:
		out := &DockerfileSource{
			Context: r.path(in, s.dockerfile.context, "."),
			Target:  get(r, in, s.dockerfile.target, ""),
			Args:    r.textMap(in, s.dockerfile.args),
		}
		out.File = path.Join(out.Context, get(r, in, s.dockerfile.file, "Dockerfile"))
		if at := s.dockerfile.file.at; at.src != nil {
			r.inside(at, out.File)
		}
		return Source{Dockerfile: out}
	case s.executable != nil:
		return Source{Executable: &ExecutableSource{
			Path: r.path(in, s.executable.path, "."), Args: r.textList(in, s.executable.args)}}
	case s.npm != nil:
		return Source{NPM: &NPMSource{Dir: r.path(in, s.npm.dir, "."), Script: get(r, in, s.npm.script, "start")}}
	}
	return Source{}
}

// inside refuses a path relative to the root that leaves it.
func (r *resolver) inside(at place, joined string) {
	if joined == ".." || strings.HasPrefix(joined, "../") {
		r.faults.faultf(at, "`%s` lies outside the repository root", clip(joined))
	} else if r.doc.files.escapes(joined) {
		r.faults.faultf(at, "`%s` leads outside the repository root through a symbolic link", clip(joined))
	}
}

func (r *resolver) resolveGo(in *scope, s *goSyntax) *GoSource {
	out := &GoSource{
		Module:  r.path(in, s.module, "."),
		Modfile: get(r, in, s.modfile, ""),
		Package: get(r, in, s.pkg, "."),
		Tags:    r.textList(in, s.tags),
		Require: r.textMap(in, s.require),
		Cgo:     get(r, in, s.cgo, false),
		Flags:   r.textList(in, s.flags),
	}
	if strings.HasPrefix(out.Package, "..") || path.IsAbs(out.Package) || strings.HasPrefix(path.Clean(out.Package), "../") {
		r.faults.faultf(s.pkg.at, "the package `%s` lies outside its module", clip(out.Package))
	}
	for _, e := range s.replace {
		text := get(r, in, e.value, "v0")
		if isFolder(text) {
			if joined, ok := r.doc.files.join(r.faults, e.value.at, text); ok {
				text = "./" + joined
			}
		}
		if out.Replace == nil {
			out.Replace = map[string]string{}
		}
		out.Replace[e.key] = text
	}
	return out
}

func (r *resolver) resolveCollect(in *scope, s *collectSyntax) *Collect {
	out := &Collect{Outputs: get(r, in, s.outputs, true)}
	if s.elasticsearch != nil {
		out.Elasticsearch = &Elasticsearch{Index: get(r, in, s.elasticsearch.index, "")}
	}
	for _, e := range s.assert {
		if e != nil {
			out.Assert = append(out.Assert, Assertion{Expr: r.frozen(in, e), Position: e.at.String()})
		}
	}
	if s.compare != nil {
		out.Compare = r.resolveCompare(in, s.compare)
	}
	for _, form := range r.textList(in, s.export) {
		if !slices.Contains(out.Export, form) {
			out.Export = append(out.Export, form)
		}
	}
	return out
}

func (r *resolver) resolveCompare(in *scope, s *compareSyntax) *Compare {
	out := &Compare{
		With:  get(r, in, s.with, lastSuccess),
		Runs:  int(get(r, in, s.runs, int64(10))),
		Alpha: get(r, in, s.alpha, 0.05),
	}
	for _, t := range s.tolerance {
		if out.Tolerance == nil {
			out.Tolerance = map[string]Share{}
		}
		out.Tolerance[t.key] = get(r, in, t.value, Share(0))
	}
	return out
}
