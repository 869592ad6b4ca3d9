package testground

import (
	"github.com/groundplan/groundplan/pipelines/testground/internal/toml"
)

// runner is what of a runner's settings there is a place for.
type runner struct {
	ports   map[string]string
	env     map[string]string
	timeout string // a duration
	why     string // a comment on it
	cpu     string
	memory  string
	line    int
	file    string
}

// runnerReasons are the settings of runners that nothing stands for here, and why.
var runnerReasons = map[string]struct {
	state State
	why   string
}{
	"enabled":                     {Needless, "a runner needs no leave"},
	"keep_containers":             {Lost, "`onFailure: hold` on a stage keeps what is placed"},
	"keep_service":                {Lost, "`onFailure: hold` on a stage keeps what is placed"},
	"no_start":                    {Lost, "`groundplan run --only place` places and starts nothing"},
	"background":                  {Lost, "`groundplan run --detach` doesn't wait"},
	"ulimits":                     {Lost, "instances have the limits of who runs groundplan: set them there"},
	"sysctls":                     {Lost, "instances have the settings of a new network namespace"},
	"additional_hosts":            {Lost, "instances reach each other and the sync service, and no other host"},
	"outcomes_collection_timeout": {Needless, "an outcome is known when its instance has ended"},
	"provider":                    {Lost, "belongs to a cluster"},
	"autoscaler_enabled":          {Lost, "belongs to a cluster"},
	"collect_outputs_pod_memory":  {Needless, "outputs are collected without a pod"},
	"collect_outputs_pod_cpu":     {Needless, "outputs are collected without a pod"},
	"docker_endpoint":             {Lost, "belongs to Docker Swarm"},
	"docker_tls":                  {Lost, "belongs to Docker Swarm"},
	"docker_tls_ca_cert_path":     {Lost, "belongs to Docker Swarm"},
	"docker_tls_cert_path":        {Lost, "belongs to Docker Swarm"},
	"docker_tls_key_path":         {Lost, "belongs to Docker Swarm"},
}

// usualTimeout is what Testground's daemon gives a task that its configuration says nothing about.
const usualTimeout = "10m"

// runnerOf reads the settings of the runner that a plan or composition names.
func (im *importer) runnerOf(m *manifest, named string, own *section) runner {
	if named == "" {
		named = m.runner
	}
	if named == "" && len(m.runners) > 0 {
		named = m.runners[0].name
	}
	r := runner{timeout: usualTimeout, why: "what Testground gives a task", env: map[string]string{}}
	for _, s := range settingsOf(own, find(m.runners, named)) {
		switch {
		case s.key == "exposed_ports" && s.is(im, toml.TableKind):
			r.ports = s.from.ports(s.key)
			s.note(Mapped, "ports")
		case s.key == "run_timeout_min" && s.is(im, toml.Integer):
			r.timeout, r.why = s.minutes(im), ""
			s.note(Mapped, "timeout of the run stages")
		case s.key == "log_level" && s.is(im, toml.String):
			r.env["LOG_LEVEL"] = s.value.Text
			s.note(Mapped, "env LOG_LEVEL")
		case s.key == "testplan_pod_cpu" && s.is(im, toml.String):
			r.cpu, r.line, r.file = s.value.Text, s.value.Line, s.from.file
			s.note(Mapped, "cpu of groups that ask for nothing else")
		case s.key == "testplan_pod_memory" && s.is(im, toml.String):
			r.memory, r.line, r.file = s.value.Text, s.value.Line, s.from.file
			s.note(Mapped, "memory of groups that ask for nothing else")
		default:
			s.runnerRest()
		}
	}
	return r
}

func (s setting) runnerRest() {
	if known, ok := runnerReasons[s.key]; ok {
		s.note(known.state, "%s", known.why)
		return
	}
	s.note(Unknown, "Testground's runner doesn't know this key; left out")
}
