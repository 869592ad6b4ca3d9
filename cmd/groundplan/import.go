package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/pipelines/testground"
)

func (a *app) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import", Short: "Make pipelines of another platform's files",
		Args: a.noSuchImport,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.importTestgroundCommand())
	return cmd
}

func (a *app) noSuchImport(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usage(fmt.Errorf("what is imported is testground, not %q", args[0]))
}

// importOptions are the flags of `import testground`.
type importOptions struct {
	compositions []string
	force        bool
	form         *string
}

func (a *app) importTestgroundCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use: "testground DIR", Short: "Make pipelines of a Testground plan",
		Long: "Read the manifest.toml in DIR and write a pipeline for each of its test cases into DIR, or with --composition one for\n" +
			"each of those. Nothing of the plan is changed. A table says what became of every key; what a pipeline can't say\n" +
			"stands in it as a comment too.",
		Args: args(cobra.ExactArgs(1)),
	}
	cmd.RunE = func(_ *cobra.Command, dirs []string) error { return a.importTestground(dirs[0], o) }
	cmd.Flags().StringArrayVar(&o.compositions, "composition", nil, "import this composition, not the test cases (repeat for more)")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace pipelines that are there already")
	o.form = output(cmd, "text", "json")
	return cmd
}

// imported is the answer of `import testground`.
type imported struct {
	Pipelines []string         `json:"pipelines"` // paths
	Report    []testground.Row `json:"report"`
}

func (a *app) importTestground(dir string, o importOptions) error {
	compositions := o.compositions
	if len(compositions) == 0 {
		compositions = []string{""} // the test cases
	}
	answer := imported{Pipelines: []string{}, Report: []testground.Row{}}
	made := map[string][]byte{}
	for _, composition := range compositions {
		result, err := convert(dir, composition, "")
		if err != nil {
			return err
		}
		for _, p := range result.Pipelines {
			path := filepath.Join(dir, p.File)
			if _, twice := made[path]; twice {
				return usage(fmt.Errorf("two compositions would both be written to %s: import them one by one and rename the first", path))
			}
			made[path] = p.Text
			answer.Pipelines = append(answer.Pipelines, path)
		}
		for _, row := range result.Report {
			if !slices.Contains(answer.Report, row) {
				answer.Report = append(answer.Report, row)
			}
		}
	}
	if err := writePipelines(made, answer.Pipelines, o.force); err != nil {
		return err
	}
	if *o.form == "json" {
		return a.json(answer)
	}
	return a.tellImported(dir, answer, len(o.compositions) == 0)
}

// convert imports a plan's folder: one composition, or every test case. folder is the plan's as seen from where the
// pipeline will be.
func convert(dir, composition, folder string) (testground.Result, error) {
	manifest, err := fileOf(filepath.Join(dir, "manifest.toml"))
	if err != nil {
		return testground.Result{}, usage(fmt.Errorf("reading a Testground plan: %w", err))
	}
	in := testground.Input{Manifest: manifest, Env: environment(), Folder: folder}
	if composition != "" {
		file, err := fileOf(composition)
		if err != nil {
			return testground.Result{}, usage(fmt.Errorf("reading a composition: %w", err))
		}
		in.Composition = &file
		in.Resource = func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(filepath.Dir(composition), name)) }
	}
	if in.Sources, err = goFiles(dir); err != nil {
		return testground.Result{}, usage(fmt.Errorf("reading the plan's Go files: %w", err))
	}
	in.Files = func(name string) bool {
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name)))
		return err == nil && info.Mode().IsRegular()
	}
	result, err := testground.Import(in)
	if err != nil {
		return result, usage(err)
	}
	return result, nil
}

func fileOf(path string) (testground.File, error) {
	data, err := os.ReadFile(path)
	return testground.File{Name: path, Data: data}, err
}

func environment() map[string]string {
	env := map[string]string{}
	for _, line := range os.Environ() {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	return env
}

// mostSources bounds how many Go files are looked at, in a folder that may be anything.
const mostSources = 5000

// goFiles reads the Go files and the go.mod files of a plan, without those of its dependencies.
func goFiles(dir string) ([]testground.File, error) {
	var files []testground.File
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != dir && (name == "vendor" || name == "node_modules" || name == "testdata" || strings.HasPrefix(name, ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if ext := filepath.Ext(name); !entry.Type().IsRegular() || ext != ".go" && ext != ".mod" {
			return nil
		}
		if len(files) == mostSources {
			return filepath.SkipAll
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files = append(files, testground.File{Name: filepath.ToSlash(rel), Data: data})
		return err
	})
	return files, err
}

// writePipelines writes all or, when one of them is there and is another one, none.
func writePipelines(made map[string][]byte, order []string, force bool) error {
	for _, path := range order {
		there, err := os.ReadFile(path)
		if err == nil && !bytes.Equal(there, made[path]) && !force {
			return usage(fmt.Errorf("%s is there already: --force replaces it", path))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return usage(err)
		}
	}
	for _, path := range order {
		if err := os.WriteFile(path, made[path], 0o644); err != nil {
			return err
		}
		if _, err := pipelines.Load(path, pipelines.Options{}); err != nil {
			return fmt.Errorf("what was made of the plan has faults, which is ours: please report it\n%w", err)
		}
	}
	return nil
}

func (a *app) tellImported(dir string, answer imported, cases bool) error {
	head := func(text string) terminal.Cell { return terminal.Cell{Text: text, Style: terminal.Dim} }
	table := [][]terminal.Cell{{head("WHERE"), head("KEY"), head(""), head("BECAME")}}
	for _, r := range answer.Report {
		place := filepath.Base(r.File)
		if r.Line > 0 {
			place += fmt.Sprintf(":%d", r.Line)
		}
		table = append(table, []terminal.Cell{terminal.Text(place), terminal.Text(r.Key), {Text: string(r.State), Style: styleOf(r.State)}, terminal.Text(r.Became)})
	}
	fmt.Fprint(a.out, a.out.Unbounded().Table(table))
	for _, path := range answer.Pipelines {
		a.tell("%s %s", a.say.Paint(terminal.Green, "✔"), path)
	}
	if cases {
		for _, path := range compositionsIn(dir) {
			a.tell("  %s is a composition: import it with --composition", path)
		}
	}
	a.tell("Next: groundplan run %s", answer.Pipelines[0])
	return nil
}

// styleOf makes stand out what somebody should look at.
func styleOf(state testground.State) terminal.Style {
	switch state {
	case testground.Lost, testground.Unknown:
		return terminal.Red
	case testground.Changed:
		return terminal.Yellow
	}
	return terminal.Dim
}

// compositionsIn finds the compositions that lie in a plan's folder.
func compositionsIn(dir string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && isComposition(path) {
			found = append(found, path)
		}
		return nil // what can't be read isn't suggested
	})
	return found
}

// isComposition looks for the tables that make a file a composition.
func isComposition(path string) bool {
	if filepath.Ext(path) != ".toml" {
		return false
	}
	data, err := os.ReadFile(path)
	return err == nil && bytes.Contains(data, []byte("[global]"))
}
