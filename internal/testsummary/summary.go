package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// result is a test, or a package where the test's name is empty.
type result struct {
	pkg, test string
	output    []string
}

func (r result) name() string {
	if r.test == "" {
		return r.pkg
	}
	return r.pkg + " " + r.test
}

type summary struct {
	passed  int
	failed  []result
	skipped []result
	builds  map[string][]string // import path → what the compiler said
	pending map[[2]string][]string
}

func newSummary() *summary {
	return &summary{builds: map[string][]string{}, pending: map[[2]string][]string{}}
}

// read takes events until the input ends and prints a line for each package as it ends. A line that is no event (what
// a go command said before it ran any test) is passed on.
func (s *summary) read(in *bufio.Reader, progress io.Writer) error {
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprint(progress, string(line))
			} else {
				s.add(e, progress)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading test events: %w", err)
		}
	}
}

func (s *summary) add(e event, progress io.Writer) {
	key := [2]string{e.Package, e.Test}
	switch e.Action {
	case "output":
		s.pending[key] = append(s.pending[key], e.Output)
	case "build-output":
		s.builds[e.ImportPath] = append(s.builds[e.ImportPath], e.Output)
	case "pass", "fail", "skip":
		s.end(e, result{pkg: e.Package, test: e.Test, output: s.pending[key]})
		delete(s.pending, key)
		if e.Test == "" {
			said := e.Action
			if said == "skip" {
				said = "none" // a package without tests
			}
			fmt.Fprintf(progress, "%-4s %6.1fs  %s\n", said, e.Elapsed, e.Package)
		}
	}
}

func (s *summary) end(e event, r result) {
	if e.FailedBuild != "" {
		r.output = append(r.output, s.builds[e.FailedBuild]...)
	}
	switch {
	case e.Action == "fail":
		s.failed = append(s.failed, r)
	case e.Test == "": // a package that passed, or has no tests
	case e.Action == "skip":
		s.skipped = append(s.skipped, r)
	default:
		s.passed++
	}
}

// print tells how it went and says whether that is good enough.
func (s *summary) print(out io.Writer, ci bool) bool {
	for _, r := range s.failed {
		fmt.Fprintf(out, "\n--- FAILED %s\n%s", r.name(), strings.Join(r.output, ""))
	}
	if len(s.skipped) > 0 {
		fmt.Fprintln(out, "\nSkipped:")
	}
	for _, r := range s.skipped {
		fmt.Fprintf(out, "  %s: %s\n", r.name(), reason(r.output))
	}
	for key := range s.pending {
		// A test that began and never ended: its process was ended from outside, and the package's failure says so.
		if key[1] != "" && slices.ContainsFunc(s.failed, func(r result) bool { return r.pkg == key[0] }) {
			fmt.Fprintf(out, "  unfinished: %s %s\n", key[0], key[1])
		}
	}
	tests := 0
	for _, r := range s.failed {
		if r.test != "" || len(r.output) > 0 {
			tests++
		}
	}
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", s.passed, tests, len(s.skipped))
	switch {
	case len(s.failed) > 0:
		return false
	case s.passed == 0:
		fmt.Fprintln(out, "no test ran")
		return false
	case ci && len(s.skipped) > 0:
		fmt.Fprintln(out, "a skipped test is a failure in CI: install what it names, or remove it")
		return false
	}
	return true
}

// reason finds what t.Skip said: the line after the position, before the verdict.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
