package pipelines

import (
	"cmp"
	"maps"
	"path"
	"slices"
)

// Options say how a pipeline is read.
type Options struct {
	// Root is the repository root; nothing outside is read. Empty: the git root above the file, else the file's folder.
	Root string
	// Set overrides parameters: name → text, read as the parameter's type.
	Set map[string]string
	// Earlier overrides those parameters that Set doesn't name with the values of an earlier run; what the file doesn't
	// have any more is left out.
	Earlier map[string]string
	// Seed overrides the file's when not nil.
	Seed *uint64
	// Getenv looks up the variables listed under `env:`; nil: none is set.
	Getenv func(name string) (string, bool)
	// Only keeps one stage and what it needs, when not empty.
	Only string
	// Compare holds the run against earlier ones where the file doesn't say so itself; see Bundle.Compare.
	Compare *Compare
}

// Document is a pipeline that was read and checked. It is safe for use by several goroutines.
type Document struct {
	bundle Bundle
	syntax pipelineSyntax
	root   *scope
	files  *reader

	groups     []group
	groupIndex map[string]int
	byRegion   map[string][]string // region → its groups
	inherited  int                 // values that groups took over from others
	stages     []*stageNode
	byName     map[string]*stageNode
	events     map[string]bool // name of an event → whether it ends before its stage does, in any of its stages
	regions    map[string]*regions
	axes       []axis
	axisKinds  map[string]kind
	cells      []cell
	set        map[string]any // --set, as typed values
	// disordered says that what comes before what is not known, for a reason that is a fault already.
	disordered bool
	// weight is about how much work one cell is.
	weight int
}

// Load reads a pipeline with its includes and region files, and checks all of it. When something is wrong with it the
// error is Faults, with everything that is.
func Load(file string, o Options) (*Document, error) {
	disk, rel, err := openDisk(file, o.Root)
	if err != nil {
		return nil, err
	}
	defer disk.close()
	b := Bundle{File: rel, Files: map[string]string{}, Set: maps.Clone(o.Set), Seed: o.Seed, Only: o.Only, Compare: o.Compare}
	return read(b, &reader{read: disk.read, escapes: disk.escapes, getenv: o.Getenv, earlier: o.Earlier})
}

// Open reads a pipeline from a bundle, as Load did, without a file system.
func Open(b Bundle) (*Document, error) {
	kept := b.Files
	b.Files = map[string]string{}
	return read(b, &reader{
		read: func(name string) (string, error) {
			if text, ok := kept[name]; ok {
				return text, nil
			}
			return "", errNotInBundle
		},
		escapes: func(string) bool { return false },
		getenv:  func(name string) (string, bool) { v, ok := b.Env[name]; return v, ok },
	})
}

// read is what Load and Open share.
func read(b Bundle, files *reader) (*Document, error) {
	files.bundle = &b
	d := &Document{files: files, events: map[string]bool{}, regions: map[string]*regions{}, axisKinds: map[string]kind{}}
	files.faults = &collector{}
	main := files.file(b.File, place{})
	if main == nil || !main.decode(files) {
		return nil, files.faults.err()
	}
	d.syntax, d.weight = main.pipeline, main.weight
	d.root = newScope(d, main.src, d.syntax.parameters)
	d.readEnv(&b)
	d.inherit(&b, files.earlier)
	d.readSet(b.Set)
	d.readMatrix()
	d.readGroups()
	d.readStages()
	d.checkExpressions()
	d.checkStages()
	d.readCells()
	d.checkCells()
	if err := files.faults.err(); err != nil {
		return nil, err
	}
	d.bundle = b
	return d, nil
}

// readEnv looks up the variables that the file lists.
func (d *Document) readEnv(b *Bundle) {
	env := map[string]string{}
	for _, n := range d.syntax.env {
		if d.files.getenv == nil || n.text == "" {
			continue
		}
		if v, ok := d.files.getenv(n.text); ok {
			env[n.text] = v
		}
	}
	b.Env = nil
	if len(env) > 0 {
		b.Env = env
	}
}

// inherit makes the parameters of an earlier run overrides.
func (d *Document) inherit(b *Bundle, earlier map[string]string) {
	for name, text := range earlier {
		_, said := b.Set[name]
		if _, known := d.root.parameter(name); !known || said {
			continue
		}
		if b.Set == nil {
			b.Set = map[string]string{}
		}
		b.Set[name] = text
	}
}

// readSet reads the overrides as the types of their parameters.
func (d *Document) readSet(set map[string]string) {
	d.set = map[string]any{}
	for _, name := range sortedKeys(set) {
		p, ok := d.root.parameter(name)
		if !ok {
			d.flagFault("--set", unknown("parameter", name, keysOf(d.root.parameters)))
			continue
		}
		v, err := p.inferred.parseText(set[name])
		if err == nil {
			err = p.allows(v)
		}
		if err != nil {
			d.flagFault("--set", problemf("", "%s: %v", name, err))
			continue
		}
		d.set[name] = v
	}
}

func (d *Document) flagFault(flag string, p *problem) {
	d.files.faults.add(Fault{File: flag, Message: p.message, Suggestion: p.suggestion, order: -1})
}

// Bundle holds all that was read, for Open.
func (d *Document) Bundle() Bundle {
	b := d.bundle
	b.Files, b.Set, b.Env = maps.Clone(b.Files), maps.Clone(b.Set), maps.Clone(b.Env)
	return b
}

// Name is the pipeline's name.
func (d *Document) Name() string { return d.syntax.name.text }

// Cells are the cells of the matrix in order; a single nil cell without a matrix.
func (d *Document) Cells() []map[string]any {
	all := make([]map[string]any, 0, len(d.cells))
	for _, c := range d.cells {
		all = append(all, c.plain(d.axes))
	}
	return all
}

// MaxParallel is how many cells run at once.
func (d *Document) MaxParallel() int {
	if d.syntax.matrix == nil {
		return 1
	}
	n, _ := d.syntax.matrix.maxParallel.literal.(int64)
	return int(cmp.Or(n, 1))
}

// reader gets files for a document, each once.
type reader struct {
	bundle  *Bundle
	faults  *collector
	read    func(name string) (string, error)
	escapes func(name string) bool // through a symbolic link
	getenv  func(name string) (string, bool)
	earlier map[string]string // parameters of an earlier run
	sources map[string]*file
}

// file is one file of a document.
type file struct {
	src      *source
	pipeline pipelineSyntax // of the main file
	included *stagesSyntax
	exprs    []*expression
	weight   int
}

// maxFiles bounds the files of a document.
const maxFiles = 100

// source reads a file, or adds a fault at the place that names it.
func (r *reader) file(name string, at place) *file {
	if f, ok := r.sources[name]; ok {
		return f
	}
	if r.sources == nil {
		r.sources = map[string]*file{}
	}
	r.sources[name] = nil
	if len(r.bundle.Files) >= maxFiles {
		r.faults.faultf(at, "a pipeline is made of at most %d files", maxFiles)
		return nil
	}
	text, err := r.read(name)
	if err != nil {
		if at.src == nil {
			r.faults.add(Fault{File: name, Message: "can't be read: " + cause(err)})
		} else {
			r.faults.faultf(at, "`%s` can't be read: %s", name, cause(err))
		}
		return nil
	}
	r.bundle.Files[name] = text
	f := &file{src: newSource(name, text, len(r.bundle.Files))}
	r.sources[name] = f
	return f
}

// decode reads the main file; false when there is nothing to check further.
func (f *file) decode(r *reader) bool {
	node := f.src.parse(r.faults)
	if node == nil {
		return false
	}
	d := &decoder{src: f.src, faults: r.faults}
	if kind := documentKind(node); kind == "suite" {
		r.faults.faultf(f.src.at(node.Line, node.Column), "this is a suite, not a pipeline")
		return false
	}
	f.pipeline = pipelineObject.decode(d, node)
	f.exprs, f.weight = d.exprs, d.values
	return !d.stopped
}

// include reads the file as one to be included.
func (f *file) include(r *reader) *stagesSyntax {
	if f.included != nil {
		return f.included
	}
	f.included = &stagesSyntax{}
	node := f.src.parse(r.faults)
	if node == nil {
		return f.included
	}
	d := &decoder{src: f.src, faults: r.faults}
	*f.included = stagesObject.decode(d, node)
	f.exprs, f.weight = d.exprs, d.values
	return f.included
}

// join resolves a path relative to a file, and refuses one that leaves the repository root.
func (r *reader) join(faults *collector, at place, name string) (string, bool) {
	joined := path.Join(path.Dir(at.src.path), name)
	switch {
	case path.IsAbs(name) || slices.Contains([]byte(name), '\\') || slices.Contains([]byte(name), 0):
		faults.faultf(at, "`%s` is not a path relative to this file with forward slashes", clip(name))
	case joined == ".." || len(joined) > 2 && joined[:3] == "../":
		faults.faultf(at, "`%s` lies outside the repository root", clip(name))
	case r.escapes(joined):
		faults.faultf(at, "`%s` leads outside the repository root through a symbolic link", clip(name))
	default:
		return joined, true
	}
	return "", false
}
