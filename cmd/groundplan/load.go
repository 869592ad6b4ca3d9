package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/pipelines/testground"
)

// source are the flags that decide what a file resolves to.
type source struct {
	set  []string
	seed string
	only string
	// earlier is the run whose parameters, seed and variables hold where nothing else is said; nil: none.
	earlier *pipelines.Resolved
	// lost is what a composition says and the pipeline that load made of it doesn't.
	lost []testground.Row
}

func (s *source) flags(flags *pflag.FlagSet) {
	flags.StringArrayVar(&s.set, "set", nil, "override a parameter: --set peers=2000 (repeat for more)")
	flags.StringVar(&s.seed, "seed", "", "seed of every random choice of the run")
	flags.StringVar(&s.only, "only", "", "carry out one stage and what it needs")
}

// options turns the flags into those of pipelines.Load.
func (s *source) options() (pipelines.Options, error) {
	o := pipelines.Options{Getenv: os.LookupEnv, Only: s.only, Set: map[string]string{}}
	for _, text := range s.set {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return o, usage(fmt.Errorf("--set %s: write it as name=value", text))
		}
		if _, twice := o.Set[name]; twice {
			return o, usage(fmt.Errorf("--set %s is given twice", name))
		}
		o.Set[name] = value
	}
	if s.seed != "" {
		seed, err := parseSeed(s.seed)
		if err != nil {
			return o, err
		}
		o.Seed = &seed
	}
	if s.earlier != nil {
		s.inherit(&o)
	}
	return o, nil
}

// inherit has the values of an earlier run hold where nothing else is said. A seed that was worked out of parameters stays
// too: the same choices are to be made again.
func (s *source) inherit(o *pipelines.Options) {
	o.Earlier = map[string]string{}
	for name, value := range s.earlier.Parameters {
		o.Earlier[name] = fmt.Sprint(value)
	}
	if o.Seed == nil {
		o.Seed = &s.earlier.Seed
	}
	o.Getenv = func(name string) (string, bool) {
		if value, ok := s.earlier.Env[name]; ok {
			return value, true
		}
		return os.LookupEnv(name)
	}
}

func parseSeed(text string) (uint64, error) {
	var seed uint64
	if _, err := fmt.Sscanf(text, "%d", &seed); err != nil || fmt.Sprint(seed) != text {
		return 0, usage(fmt.Errorf("--seed %s: a seed is a whole number from 0 to 18446744073709551615", text))
	}
	return seed, nil
}

// load reads a pipeline, or a composition as the pipeline that it stands for; every fault of the file is one of the
// caller's.
func (s *source) load(file string) (*pipelines.Document, error) {
	o, err := s.options()
	if err != nil {
		return nil, err
	}
	if isComposition(file) {
		return s.loadComposition(file, o)
	}
	doc, err := pipelines.Load(file, o)
	if err != nil {
		return nil, usage(err)
	}
	return doc, nil
}

// resolved is a document's pipeline, or with a matrix that of its first cell and all cells.
func resolved(doc *pipelines.Document) (r pipelines.Resolved, cells []map[string]any, err error) {
	cells = doc.Cells()
	r, err = doc.Resolve(cells[0])
	if cells[0] == nil { // no matrix
		cells = nil
	}
	if err != nil {
		return r, nil, usage(err)
	}
	return r, cells, nil
}

// rootOf is the repository root that a file was read under: its path without what the bundle calls it.
func rootOf(file string, doc *pipelines.Document) (string, error) {
	return rootAbove(file, doc.Bundle().File)
}

// rootAbove is the folder in which a file has the path rest, with forward slashes.
func rootAbove(file, rest string) (string, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	rest = string(filepath.Separator) + filepath.FromSlash(rest)
	root, ok := strings.CutSuffix(path, rest)
	if !ok {
		return "", fmt.Errorf("%s was read as %s: its repository root can't be told", path, rest)
	}
	return filepath.Clean(root + string(filepath.Separator)), nil
}

// pipelineFile completes arguments that name a pipeline.
func pipelineFile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml", "toml"}, cobra.ShellCompDirectiveFilterFileExt
}
