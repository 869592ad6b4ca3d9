// Package runs knows what the folder of a run holds and where. It is the one place that builds those paths.
//
//	$GROUNDPLAN_HOME/
//	├── config.yaml
//	├── services.json            addresses of the embedded services while they are up
//	├── temporal-<schema>.db     the embedded Temporal's database
//	├── artifacts/<digest>/      what builds made
//	├── suites/<suite>/suite.json what a suite was created with
//	├── suites/<suite>/<id>.json what came of one turn of a suite
//	└── runs/<id>/
//	    ├── run.json             the record: verdict, reason, figures
//	    ├── pipeline.json        the resolved pipeline
//	    ├── taken.json           what was taken over from an earlier run
//	    ├── events.jsonl         what happened when
//	    ├── metrics.json         summaries of the metrics, once they were collected
//	    ├── samples.json         the same of single instances, at most 1,000
//	    ├── metrics.parquet      the metrics for other programs, where a collect stage says `export`
//	    ├── metrics.prom
//	    ├── metrics.otlp.json
//	    ├── comparison.json      what came of the comparison with other runs
//	    ├── report.html          all of it to read, once it was asked for
//	    ├── elasticsearch/<index>/push.json      how far the push of the logs has come
//	    ├── elasticsearch/<index>/refused.jsonl  what the server would not take, and why
//	    ├── build-<artifact>.log what the compiler said
//	    ├── sidecar.log
//	    ├── nodes/<node>.log     what the sidecars on a cluster's nodes say
//	    ├── stages/<stage>.jsonl what became of each instance of a run stage
//	    ├── stages/<stage>.network.json  what the pairs of the data network were found to do
//	    ├── outputs/<group>/<index>/
//	    └── temp/                removed at the end
package runs

import (
	"path/filepath"
	"strconv"
)

// Home is a state folder ($GROUNDPLAN_HOME), absolute.
type Home string

// Run is the folder of a run.
func (h Home) Run(id string) Folder { return Folder(filepath.Join(string(h), "runs", id)) }

// Artifacts is the folder of what builds made.
func (h Home) Artifacts() string { return filepath.Join(string(h), "artifacts") }

// Suites is the folder of the suites' history.
func (h Home) Suites() string { return filepath.Join(string(h), "suites") }

// Suite is the path of what a suite was created with.
func (h Home) Suite(name string) string { return filepath.Join(h.Suites(), name, "suite.json") }

// SuiteTurn is the path of the record of one turn of a suite.
func (h Home) SuiteTurn(suite, id string) string {
	return filepath.Join(h.Suites(), suite, id+".json")
}

// Folder is the folder of one run, absolute.
type Folder string

// Record is the path of the run's record.
func (f Folder) Record() string { return filepath.Join(string(f), "run.json") }

// Pipeline is the path of the resolved pipeline.
func (f Folder) Pipeline() string { return filepath.Join(string(f), "pipeline.json") }

// Taken is the path of what was taken over from an earlier run, once all of it is there.
func (f Folder) Taken() string { return filepath.Join(string(f), "taken.json") }

// Events is the path of the run's event log.
func (f Folder) Events() string { return filepath.Join(string(f), "events.jsonl") }

// Metrics is the path of the collected metrics.
func (f Folder) Metrics() string { return filepath.Join(string(f), "metrics.json") }

// Samples is the path of what single instances measured, for comparisons.
func (f Folder) Samples() string { return filepath.Join(string(f), "samples.json") }

// Parquet is the path of the measured values, a row for each.
func (f Folder) Parquet() string { return filepath.Join(string(f), "metrics.parquet") }

// Prometheus is the path of the metrics in the text format of Prometheus.
func (f Folder) Prometheus() string { return filepath.Join(string(f), "metrics.prom") }

// OTLP is the path of the metrics as OTLP/JSON.
func (f Folder) OTLP() string { return filepath.Join(string(f), "metrics.otlp.json") }

// Comparison is the path of what came of the comparison with other runs.
func (f Folder) Comparison() string { return filepath.Join(string(f), "comparison.json") }

// Report is the path of the run's report.
func (f Folder) Report() string { return filepath.Join(string(f), "report.html") }

// Push is the path of what is known of the push to an index of Elasticsearch: how far it has come.
func (f Folder) Push(index string) string {
	return filepath.Join(string(f), "elasticsearch", index, "push.json")
}

// Refused is the path of the documents that Elasticsearch would not take into an index, with its reasons.
func (f Folder) Refused(index string) string {
	return filepath.Join(string(f), "elasticsearch", index, "refused.jsonl")
}

// BuildLog is the path of what the compiler said about an artifact.
func (f Folder) BuildLog(artifact string) string {
	return filepath.Join(string(f), "build-"+artifact+".log")
}

// SidecarLog is the path of what the sidecar says.
func (f Folder) SidecarLog() string { return filepath.Join(string(f), "sidecar.log") }

// NodeLog is the path of what the run's sidecar on a node of a cluster says.
func (f Folder) NodeLog(node string) string { return filepath.Join(string(f), "nodes", node+".log") }

// Stage is the path of the per-instance results of a run stage.
func (f Folder) Stage(name string) string { return filepath.Join(string(f), "stages", name+".jsonl") }

// Proof is the path of what a network stage's pairs were found to do, beside what was asked.
func (f Folder) Proof(stage string) string {
	return filepath.Join(string(f), "stages", stage+".network.json")
}

// Outputs is the folder of an instance's outputs.
func (f Folder) Outputs(group string, index int) string {
	return filepath.Join(string(f), "outputs", group, strconv.Itoa(index))
}

// Temp is an instance's folder for temporary files.
func (f Folder) Temp(group string, index int) string {
	return filepath.Join(string(f), "temp", group, strconv.Itoa(index))
}
