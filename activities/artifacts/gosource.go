package artifacts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// goInputs is all that goes into a Go program; the hash of its JSON is the artifact's digest. Absolute paths stay out:
// the same sources in another folder are the same artifact.
type goInputs struct {
	Kind    string            `json:"kind"`
	Format  int               `json:"format"` // grows when the way of building changes
	Env     map[string]string `json:"env"`
	Package string            `json:"package"`
	Tags    []string          `json:"tags,omitempty"`
	Flags   []string          `json:"flags,omitempty"`
	Cgo     bool              `json:"cgo,omitempty"`
	Replace map[string]string `json:"replace,omitempty"`
	Require map[string]string `json:"require,omitempty"`
	// Modfile is what stands in for the main module's go.mod and go.sum: names and hashes.
	Modfile []string `json:"modfile,omitempty"`
	// Modules are the source trees that lie on this machine: the main module first, then those that a replace names.
	Modules []tree `json:"modules"`
}

// tree is a source tree in short.
type tree struct {
	Module string `json:"module"`
	Files  int    `json:"files"`
	SHA256 string `json:"sha256"`
}

// buildGo makes a Go program. A go.work around the module is not respected (GOWORK=off): what goes into an artifact is
// what its module and the pipeline say, not what lies further up on one machine.
func (s *Store) buildGo(ctx context.Context, order Order, source pipelines.GoSource) (stage.Artifact, error) {
	b, err := s.goBuild(ctx, order, source)
	if err != nil {
		return stage.Artifact{}, err
	}
	inputs, described, err := b.describe(ctx)
	if err != nil {
		return stage.Artifact{}, err
	}
	digest := hexSum(described)
	program, cached, err := s.obtain(ctx, order, digest, described, func(folder string) error {
		order.note("compiling " + order.Name)
		if err := b.compile(ctx, folder, inputs); err != nil {
			return err
		}
		if _, after, err := b.describe(ctx); err != nil || hexSum(after) != digest {
			return errors.Join(fmt.Errorf("the sources of %s changed while they were compiled", order.Name), err)
		}
		return nil
	})
	if err != nil {
		return stage.Artifact{}, err
	}
	return stage.Artifact{Name: order.Name, Digest: digest, Path: program, Cached: cached}, nil
}

// describe gathers all that goes into the program, also as the JSON that its digest is of.
func (b *goBuild) describe(ctx context.Context) (goInputs, []byte, error) {
	inputs, err := b.inputs(ctx)
	if err := errors.Join(err, b.index.save()); err != nil {
		return inputs, nil, err
	}
	described, err := json.Marshal(inputs)
	if err != nil {
		return inputs, nil, fmt.Errorf("describing %s: %w", b.order.Name, err)
	}
	return inputs, described, nil
}

// goBuild is one build of a Go program under way.
type goBuild struct {
	store  *Store
	order  Order
	source pipelines.GoSource
	module string // absolute folder of the go.mod
	// modfile is the absolute path of what is read as the go.mod.
	modfile string
	tool    goTool
	index   *index
	// local is module path → absolute folder, for the `./folder` values of the source's replace.
	local map[string]string
}

// goBuild checks what can be checked before anything is read.
func (s *Store) goBuild(ctx context.Context, order Order, source pipelines.GoSource) (*goBuild, error) {
	if fault := checkGoSource(source); fault != nil {
		return nil, fault
	}
	module, fault := inside(order.Root, source.Module)
	if fault != nil {
		return nil, fault
	}
	b := &goBuild{store: s, order: order, source: source, module: module, local: map[string]string{}}
	if b.modfile, fault = modfileOf(order.Root, module, source); fault != nil {
		return nil, fault
	}
	for _, path := range slices.Sorted(maps.Keys(source.Replace)) {
		value := source.Replace[path]
		if !isFolder(value) {
			continue
		}
		if b.local[path], fault = inside(order.Root, value); fault != nil {
			return nil, wrong("replace of %s: %s", path, fault.Reason)
		}
		if found, err := exists(filepath.Join(b.local[path], "go.mod")); err != nil || !found {
			return nil, wrong("replace of %s: there is no go.mod in %s", path, value)
		}
	}
	var err error
	if b.tool, err = s.newGoTool(order, module, source.Cgo); err != nil {
		return nil, err
	}
	b.index = openIndex(s.indexPath(module))
	return b, ctx.Err()
}

// isFolder says whether the value of a replace names a folder, as the go command tells it.
func isFolder(value string) bool {
	return value == "." || value == ".." || strings.HasPrefix(value, "./") || strings.HasPrefix(value, "../")
}

// inputs gathers all that goes into the program.
func (b *goBuild) inputs(ctx context.Context) (goInputs, error) {
	mod, err := b.index.hash(b.modfile)
	if err != nil {
		return goInputs{}, fmt.Errorf("reading %s: %w", filepath.Base(b.modfile), err)
	}
	env, err := b.environment(ctx, mod.SHA256)
	if err != nil {
		return goInputs{}, err
	}
	in := goInputs{
		Kind: "go", Format: 1, Env: env,
		Package: b.source.Package, Tags: slices.Sorted(slices.Values(b.source.Tags)), Flags: b.source.Flags, Cgo: b.source.Cgo,
	}
	if in.Replace, err = b.pin(ctx, b.source.Replace); err != nil {
		return goInputs{}, err
	}
	if in.Require, err = b.pin(ctx, b.source.Require); err != nil {
		return goInputs{}, err
	}
	if b.source.Modfile != "" {
		in.Modfile = []string{b.source.Modfile + " " + mod.SHA256}
		if sums, err := b.index.hash(checksumsOf(b.modfile)); err == nil {
			in.Modfile = append(in.Modfile, checksumsOf(b.source.Modfile)+" "+sums.SHA256)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return goInputs{}, fmt.Errorf("reading %s: %w", checksumsOf(b.source.Modfile), err)
		}
	}
	in.Modules, err = b.trees(ctx, mod.SHA256)
	return in, err
}

// trees sums up the main module and every module that is replaced by a folder. Only the main module's own replaces
// count: the go command ignores those of the modules it depends on.
func (b *goBuild) trees(ctx context.Context, modSum string) ([]tree, error) {
	replaced, err := b.replaced(ctx, modSum)
	if err != nil {
		return nil, err
	}
	folders := map[string]string{}
	for _, r := range replaced {
		if _, overridden := b.source.Replace[r.Old]; overridden || r.NewVersion != "" {
			continue
		}
		folders[r.Old] = r.New
		if !filepath.IsAbs(r.New) {
			folders[r.Old] = filepath.Join(b.module, r.New)
		}
	}
	maps.Copy(folders, b.local)
	main, err := b.tree("", b.module)
	if err != nil {
		return nil, err
	}
	trees := []tree{main}
	for _, module := range slices.Sorted(maps.Keys(folders)) {
		t, err := b.tree(module, folders[module])
		if err != nil {
			return nil, err
		}
		trees = append(trees, t)
	}
	return trees, nil
}

// tree sums up one source tree.
func (b *goBuild) tree(module, dir string) (tree, error) {
	if found, err := exists(dir); err != nil || !found {
		return tree{}, wrong("go.mod replaces %s by %s, which does not exist", module, dir)
	}
	w := walk{index: b.index, skip: filepath.Dir(b.store.dir), everything: b.source.Cgo}
	lines, err := w.module(dir)
	if err != nil {
		return tree{}, fmt.Errorf("reading the sources in %s: %w", dir, err)
	}
	return tree{Module: module, Files: len(lines), SHA256: hexSum([]byte(strings.Join(lines, "\n")))}, nil
}

// walk hashes the files of a module.
type walk struct {
	index *index
	skip  string // a folder that is none of the module's business: the state folder
	// everything says that any file may go into the build: with cgo, and where Go files embed others.
	everything bool
	embeds     bool
	lines      []string
}

// module returns one line per file of the module at dir: its path below dir and its hash.
func (w walk) module(dir string) ([]string, error) {
	for {
		w.lines, w.embeds = nil, false
		if err := w.folder(dir, ""); err != nil {
			return nil, err
		}
		if w.everything || !w.embeds {
			return w.lines, nil
		}
		w.everything = true
	}
}

func (w *walk) folder(root, below string) error {
	entries, err := os.ReadDir(filepath.Join(root, below))
	if err != nil {
		return err
	}
	if below != "" && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "go.mod" }) {
		return nil // a module of its own
	}
	for _, entry := range entries {
		path := filepath.Join(below, entry.Name())
		if entry.IsDir() {
			if w.enters(filepath.Join(root, path), entry.Name()) {
				err = w.folder(root, path)
			}
		} else if w.counts(path) {
			err = w.file(root, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) file(root, path string) error {
	info, err := os.Stat(filepath.Join(root, path)) // through symbolic links, as the go command reads
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	known, err := w.index.hash(filepath.Join(root, path))
	if err != nil {
		return err
	}
	w.embeds = w.embeds || known.Embeds
	w.lines = append(w.lines, filepath.ToSlash(path)+" "+known.SHA256)
	return nil
}

func (w *walk) enters(path, name string) bool {
	switch name {
	case ".git", ".hg", ".svn", ".jj":
		return false
	}
	return path != w.skip && (w.everything || !strings.HasPrefix(name, "."))
}

// sourceExtensions are those of the files that the go command compiles or hands to a compiler.
var sourceExtensions = []string{".go", ".s", ".S", ".sx", ".syso", ".pgo", ".c", ".cc", ".cpp", ".cxx", ".m", ".h", ".hh", ".hpp",
	".hxx", ".f", ".F", ".for", ".f90", ".swig", ".swigcxx"}

// counts says whether a file can go into the program.
func (w *walk) counts(path string) bool {
	name := filepath.Base(path)
	switch {
	case strings.HasSuffix(name, "_test.go"):
		return false
	case w.everything, name == "go.mod", name == "go.sum", path == filepath.Join("vendor", "modules.txt"):
		return true
	case strings.HasPrefix(name, "."), strings.HasPrefix(name, "_"):
		return false
	}
	return slices.Contains(sourceExtensions, filepath.Ext(name))
}
