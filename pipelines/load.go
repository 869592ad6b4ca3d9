package pipelines

import "errors"

// Options say how a pipeline is read.
type Options struct {
	// Root is the repository root, absolute; nothing outside is read. Empty: the git root above the file, else the file's folder.
	Root string
	// Set overrides parameters: name → text, read as the parameter's type.
	Set map[string]string
	// Seed overrides the file's when not nil.
	Seed *uint64
	// Getenv looks up the variables listed under `env:`; nil: none is set.
	Getenv func(name string) (string, bool)
	// Only keeps one stage and what it needs, when not empty.
	Only string
}

// Document is a pipeline that was read and checked.
type Document struct {
	bundle Bundle
}

var errBeingWritten = errors.New("pipelines: being written")

// Load reads a pipeline with its includes and region files, and checks all of it. When the file is wrong the error is
// Faults, with everything that is.
func Load(path string, o Options) (*Document, error) { return nil, errBeingWritten }

// Open reads a pipeline from a bundle, as Load did, without a file system.
func Open(b Bundle) (*Document, error) { return nil, errBeingWritten }

// Bundle holds all that was read, for Open.
func (d *Document) Bundle() Bundle { return d.bundle }

// Name is the pipeline's name.
func (d *Document) Name() string { return "" }

// Cells are the cells of the matrix in order; one nil cell without a matrix.
func (d *Document) Cells() []map[string]any { return nil }

// MaxParallel is how many cells run at once.
func (d *Document) MaxParallel() int { return 1 }

// Resolve works out the pipeline of one cell (nil without a matrix).
func (d *Document) Resolve(cell map[string]any) (Resolved, error) { return Resolved{}, errBeingWritten }

// Inputs is what Evaluate sees of a resolved pipeline.
type Inputs struct {
	Parameters map[string]any
	Cell       map[string]any
	Env        map[string]string
	Groups     []Group
}

// Evaluate works out a `when` or an `assert` of a resolved pipeline. The explanation has the value of each name used:
// `metrics.rtt.p95 = 2.41`.
func Evaluate(expr string, in Inputs, v Variables) (holds bool, explanation string, err error) {
	return false, "", errBeingWritten
}

// JSONSchema is the draft-07 schema of a document.
func JSONSchema() []byte { return nil }

// Reference is docs/pipeline.md.
func Reference() []byte { return nil }

// DefaultTimeout bounds an attempt of a stage without `timeout`; DefaultHoldFor is how long a held placement waits.
const (
	DefaultTimeout = Duration(3600e9)
	DefaultHoldFor = Duration(4 * 3600e9)
)
