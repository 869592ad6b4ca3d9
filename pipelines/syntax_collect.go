package pipelines

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// collectSyntax gathers what a run left.
type collectSyntax struct {
	located
	outputs       value
	elasticsearch *elasticsearchSyntax
	assert        []*expression
	compare       *compareSyntax
	export        []value
}

var collectObject = &object[collectSyntax]{
	name: "collect", doc: "Archives the outputs, computes the metrics, checks `assert`, compares, pushes logs.",
	fields: []field[collectSyntax]{
		key("outputs", "Whether the outputs are archived.", boolForm, func(c *collectSyntax) *value { return &c.outputs }).defaultsTo("true"),
		key("elasticsearch", "Pushes logs and events; only in a stage that comes after every `run` stage.", pointer[elasticsearchSyntax]{elasticsearchObject},
			func(c *collectSyntax) **elasticsearchSyntax { return &c.elasticsearch }),
		key("assert", "What must hold.", list[*expression]{elem: condition{contextVerdict}},
			func(c *collectSyntax) *[]*expression { return &c.assert }),
		key("compare", "Holds the run against earlier ones.", pointer[compareSyntax]{compareObject},
			func(c *collectSyntax) **compareSyntax { return &c.compare }),
		key("export", "Writes the metrics for other programs into the run's folder, and sends them where an address is configured: `parquet` (metrics.parquet, a row per measured value), `prometheus` (metrics.prom; setting `prometheus`), `otlp` (metrics.otlp.json, and the plans' traces; setting `otlp`). Only in a stage that comes after every `run` stage.",
			list[value]{elem: enumForm(ExportParquet, ExportPrometheus, ExportOTLP), orOne: true}, func(c *collectSyntax) *[]value { return &c.export }),
	},
}

type elasticsearchSyntax struct {
	located
	index value
}

var indexPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,254}$`)

var elasticsearchObject = &object[elasticsearchSyntax]{
	name: "elasticsearch", doc: "Where logs and events go.",
	fields: []field[elasticsearchSyntax]{
		key("index", "The index.", &scalar{kind: kindString, allow: matching(indexPattern, "the name of an index (a-z, 0-9, _, - and dots)")},
			func(e *elasticsearchSyntax) *value { return &e.index }).required(),
	},
}

type compareSyntax struct {
	located
	with, runs, alpha value
	tolerance         []entry[value]
}

const lastSuccess = "last-success"

// summaryFields are what is known of a metric.
var summaryFields = []string{"count", "sum", "min", "max", "mean", "p50", "p90", "p95", "p99"}

var runIDPattern = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,63}$`)

var compareObject = &object[compareSyntax]{
	name: "compare", doc: "Holds the run against earlier comparable ones (same pipeline, parameters and ground, passed). A figure has regressed, and the run has failed, when it is worse by more than its tolerance, its instances' values differ by Mann–Whitney U, and it is outside of what three earlier runs or more predict. Less is better, except for metrics whose names end in `_bits`, `_per_second`, `_throughput`, `_rate`, `_succeeded` or `_hits`. With too few runs it says so and passes.",
	fields: []field[compareSyntax]{
		key("with", "`last-success`, or the id of a run.", &scalar{kind: kindString, allow: matching(runIDPattern, "last-success or the id of a run")},
			func(c *compareSyntax) *value { return &c.with }).defaultsTo(lastSuccess),
		key("runs", "How many earlier runs.", &scalar{kind: kindInt, min: ptr(int64(1)), allow: atMost(1000)},
			func(c *compareSyntax) *value { return &c.runs }).defaultsTo("10"),
		key("alpha", "Below which p-value a difference counts.", &scalar{kind: kindFloat, allow: between(0.000001, 0.5)},
			func(c *compareSyntax) *value { return &c.alpha }).defaultsTo("0.05"),
		key("tolerance", "`<metric>.<"+strings.Join(summaryFields, "|")+">` to the share by which it may be worse; `*` stands for any metric.",
			mapping[value]{what: "figure", elem: shareForm}, func(c *compareSyntax) *[]entry[value] { return &c.tolerance }),
	},
	check: func(d *decoder, c *compareSyntax) {
		for _, t := range c.tolerance {
			i := strings.LastIndexByte(t.key, '.')
			switch stat := t.key[i+1:]; {
			case i <= 0:
				d.faults.faultf(t.at, "`%s` is not a figure: write <metric>.<%s>", clip(t.key), strings.Join(summaryFields, "|"))
			case stat != "*" && !slices.Contains(summaryFields, stat):
				d.faults.suggestf(t.at, nearest(stat, summaryFields), "unknown figure `%s` of a metric", clip(stat))
			}
		}
	},
}

// suiteSyntax is a suite file.
type suiteSyntax struct {
	located
	name      name
	schedule  *suiteScheduleSyntax
	pipelines []suitePipelineSyntax
	compare   *compareSyntax
	notify    *notifySyntax
}

var suiteObject = &object[suiteSyntax]{
	name: "suite", doc: "Pipelines that run together, on a schedule or when triggered.",
	fields: []field[suiteSyntax]{
		key("suite", "The document's kind and its name.", suiteName, func(s *suiteSyntax) *name { return &s.name }).required(),
		key("schedule", "When it runs; without it, when triggered.", pointer[suiteScheduleSyntax]{suiteScheduleObject},
			func(s *suiteSyntax) **suiteScheduleSyntax { return &s.schedule }),
		key("pipelines", "The pipelines, in order.", list[suitePipelineSyntax]{elem: suitePipelineObject},
			func(s *suiteSyntax) *[]suitePipelineSyntax { return &s.pipelines }).required(),
		key("compare", "Holds each run against earlier ones.", pointer[compareSyntax]{compareObject},
			func(s *suiteSyntax) **compareSyntax { return &s.compare }),
		key("notify", "Who is told.", pointer[notifySyntax]{notifyObject}, func(s *suiteSyntax) **notifySyntax { return &s.notify }),
	},
}

type suiteScheduleSyntax struct {
	located
	cron, timezone, overlap, catchUp, jitter value
}

var suiteScheduleObject = &object[suiteScheduleSyntax]{
	name: "schedule of a suite", doc: "When a suite runs.",
	fields: []field[suiteScheduleSyntax]{
		key("cron", "Minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly, @yearly.",
			&scalar{kind: kindString, literal: true, allow: checkCron}, func(s *suiteScheduleSyntax) *value { return &s.cron }).required(),
		key("timezone", "A name of the IANA time zone database.", &scalar{kind: kindString, literal: true, allow: checkTimezone},
			func(s *suiteScheduleSyntax) *value { return &s.timezone }).defaultsTo("UTC"),
		key("overlap", "What happens when the time has come and the last one still runs.",
			literalEnum("skip", "buffer-one", "buffer-all", "cancel-other", "terminate-other", "allow-all"),
			func(s *suiteScheduleSyntax) *value { return &s.overlap }).defaultsTo("skip"),
		key("catchUp", "How late a missed run may still start.", &scalar{kind: kindDuration, literal: true, allow: positive},
			func(s *suiteScheduleSyntax) *value { return &s.catchUp }).defaultsTo("1m"),
		key("jitter", "By how much at most a turn begins later than it is due, chosen anew each time, so that many suites don't begin at once.",
			&scalar{kind: kindDuration, literal: true, allow: positive}, func(s *suiteScheduleSyntax) *value { return &s.jitter }),
	},
}

type suitePipelineSyntax struct {
	located
	file      value
	set       []entry[value]
	onFailure value
}

var suitePipelineObject = &object[suitePipelineSyntax]{
	name: "pipeline of a suite", doc: "One pipeline.",
	fields: []field[suitePipelineSyntax]{
		key("file", "The pipeline's file, relative to this one.", &scalar{kind: kindString, literal: true, allow: notEmpty},
			func(p *suitePipelineSyntax) *value { return &p.file }).required(),
		key("set", "Values of its parameters.", mapping[value]{what: "parameter", keys: identifierPattern, rule: identifierRule,
			elem: &scalar{kind: kindText, literal: true}}, func(p *suitePipelineSyntax) *[]entry[value] { return &p.set }),
		key("onFailure", "Whether the pipelines after it still run.", literalEnum(OnFailureAbort, OnFailureContinue),
			func(p *suitePipelineSyntax) *value { return &p.onFailure }).defaultsTo(OnFailureAbort),
	},
}

type notifySyntax struct {
	located
	webhook value
	on      []value
	secret  value
}

var notifyObject = &object[notifySyntax]{
	name: "notify", doc: "Who is told how a suite ended.", context: contextSecret,
	fields: []field[notifySyntax]{
		key("webhook", "The URL that is called; `=secrets.NAME` keeps it out of the file.", &scalar{kind: kindString, allow: checkWebhook},
			func(n *notifySyntax) *value { return &n.webhook }).required(),
		key("on", "On what.", list[value]{elem: literalEnum("failed", "invalid", "regressed", "recovered", "passed"), orOne: true},
			func(n *notifySyntax) *[]value { return &n.on }).defaultsTo("[failed, regressed, recovered]"),
		key("secret", "The key that calls are signed with (Standard Webhooks), as `=secrets.NAME`; without it they are not signed.",
			&scalar{kind: kindString}, func(n *notifySyntax) *value { return &n.secret }),
	},
	check: func(d *decoder, n *notifySyntax) {
		if n.secret.written() && n.secret.expr == nil {
			d.faults.faultf(n.secret.at, "a secret doesn't belong into the file: write `=secrets.NAME`")
		}
	},
}

func checkWebhook(v any) error {
	text, _ := v.(string)
	if !strings.HasPrefix(text, "https://") && !strings.HasPrefix(text, "http://") {
		return fmt.Errorf("`%s` is not an http or https URL", clip(text))
	}
	return nil
}
