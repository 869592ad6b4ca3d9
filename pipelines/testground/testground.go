// Package testground turns Testground's files, a plan's manifest and its compositions, into pipelines.
//
// It reads no disk and starts nothing: bytes in, the text of pipelines out, and a report of what became of every key.
package testground

import (
	"fmt"
	"strings"
)

// File is a file's content under the name that messages call it.
type File struct {
	Name string
	Data []byte
}

// Input is what is imported.
type Input struct {
	Manifest File
	// Composition is the one to import; nil imports every test case of the manifest, each as a pipeline of its own.
	Composition *File
	// Resource reads what a composition's load_resource names, relative to the composition; nil: it can't be used.
	Resource func(path string) ([]byte, error)
	// Env is what a composition's template sees as .Env.
	Env map[string]string
	// Sources are the plan's Go files and go.mod files of any name, named relative to its folder with forward slashes. They tell whether a test case
	// can report its outcome; without them it is taken to.
	Sources []File
	// Files says whether the plan's folder holds a file, for what the build configuration names; nil: not known.
	Files func(path string) bool
	// Folder is the path from where the pipelines will be to the plan's folder, with forward slashes; empty: the same.
	Folder string
}

// Result is what came of it.
type Result struct {
	Pipelines []Pipeline
	// Report tells of every key that was read, in the order of the files.
	Report []Row
}

// Pipeline is one that was made.
type Pipeline struct {
	// File is the name that suits it, without a folder.
	File string
	// Name is the pipeline's own.
	Name string
	Text []byte
}

// State is what became of a key.
type State string

// What becomes of a key.
const (
	Mapped   State = "mapped"   // says the same here
	Changed  State = "changed"  // stands for something that isn't quite the same
	Needless State = "needless" // what it asks for is so without it
	Lost     State = "lost"     // has no counterpart
	Unknown  State = "unknown"  // neither Testground nor we know it
)

// Row says what became of one key.
type Row struct {
	File string `json:"file"`
	// Line counts from 1.
	Line int `json:"line"`
	// Key is its path: global.run_config.keep_containers.
	Key   string `json:"key"`
	State State  `json:"state"`
	// Became says where it is now, or why it is nowhere.
	Became string `json:"became"`
}

// Fault is something that Testground would refuse too, or that no pipeline can say.
type Fault struct {
	File    string
	Line    int
	Message string
}

func (f Fault) Error() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s", f.File, f.Message)
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Message)
}

// Faults are all that was found.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, 0, len(f))
	for _, one := range f {
		lines = append(lines, one.Error())
	}
	return strings.Join(lines, "\n")
}

// Import makes pipelines. The error is Faults.
func Import(in Input) (Result, error) {
	im := &importer{in: in}
	m := im.readManifest()
	if m == nil {
		return Result{}, im.faults
	}
	im.program = readProgram(in.Sources)
	var made []*pipeline
	if in.Composition == nil {
		made = im.cases(m)
	} else if c := im.readComposition(); c != nil {
		if p := im.composed(m, c); p != nil {
			made = append(made, p)
		}
	}
	if len(im.faults) > 0 {
		return Result{}, im.faults
	}
	result := Result{Report: im.report.sorted(in.Manifest.Name)}
	for _, p := range made {
		result.Pipelines = append(result.Pipelines, Pipeline{File: p.file, Name: p.name, Text: p.write(result.Report)})
	}
	return result, nil
}

// importer is one import under way.
type importer struct {
	in      Input
	report  report
	faults  Faults
	program *program
}

func (im *importer) fault(file string, line int, format string, args ...any) {
	im.faults = append(im.faults, Fault{file, line, fmt.Sprintf(format, args...)})
}
