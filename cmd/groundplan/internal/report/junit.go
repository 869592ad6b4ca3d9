package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// The elements of JUnit XML as CI systems read them.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		ID         string          `xml:"id,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Timestamp  string          `xml:"timestamp,attr,omitempty"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Class   string      `xml:"classname,attr"`
		Name    string      `xml:"name,attr"`
		Time    string      `xml:"time,attr"`
		Failure *junitFault `xml:"failure"`
		Error   *junitFault `xml:"error"`
		Skipped *junitFault `xml:"skipped"`
	}
	junitFault struct {
		Message string `xml:"message,attr,omitempty"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// JUnit writes one test suite per record: a test case per stage and per assertion. What is failed is a failure there,
// what is invalid or cancelled an error.
func JUnit(w io.Writer, records ...runs.Record) error {
	var doc junitSuites
	for _, rec := range records {
		doc.Suites = append(doc.Suites, suite(rec))
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("writing JUnit XML: %w", err)
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("writing JUnit XML: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func suite(rec runs.Record) junitSuite {
	s := junitSuite{Name: rec.Pipeline, ID: rec.ID, Time: seconds(rec.Started, rec.Ended)}
	if !rec.Started.IsZero() {
		s.Timestamp = rec.Started.UTC().Format(time.RFC3339)
	}
	for _, p := range []junitProperty{
		{"run", rec.ID}, {"verdict", string(rec.Verdict)}, {"seed", fmt.Sprint(rec.Seed)}, {"digest", rec.Digest},
		{"commit", rec.Commit}, {"parameters", Values(rec.Parameters)}, {"cell", Values(rec.Cell)},
	} {
		if p.Value != "" {
			s.Properties = append(s.Properties, p)
		}
	}
	for _, r := range rec.Stages {
		s.add(stageCase(rec.Pipeline, r))
		for _, a := range r.Assertions {
			s.add(assertionCase(rec.Pipeline, r, a))
		}
	}
	// A run may end before any stage did; its suite must not look like one that passed.
	if s.Failures+s.Errors == 0 && rec.Verdict != stage.Passed {
		c := junitCase{Class: rec.Pipeline, Name: "run", Time: s.Time}
		c.mark(rec.Verdict, rec.Reason)
		s.add(c)
	}
	return s
}

func (s *junitSuite) add(c junitCase) {
	s.Tests++
	switch {
	case c.Failure != nil:
		s.Failures++
	case c.Error != nil:
		s.Errors++
	case c.Skipped != nil:
		s.Skipped++
	}
	s.Cases = append(s.Cases, c)
}

func stageCase(pipeline string, r stage.Result) junitCase {
	c := junitCase{Class: pipeline, Name: r.Stage, Time: seconds(r.Started, r.Ended)}
	c.mark(r.Verdict, r.Reason)
	if c.Failure != nil && len(r.Failing) > 0 {
		c.Failure.Text = "did not succeed: " + strings.Join(r.Failing, ", ")
	}
	return c
}

func assertionCase(pipeline string, r stage.Result, a stage.Assertion) junitCase {
	c := junitCase{Class: pipeline + "." + r.Stage, Name: a.Expr, Time: "0"}
	if !a.Held {
		c.Failure = &junitFault{Message: a.Explanation, Type: "assertion", Text: a.Position}
	}
	return c
}

func (c *junitCase) mark(v stage.Verdict, reason string) {
	fault := &junitFault{Message: reason, Type: string(v)}
	switch v {
	case stage.Passed:
	case stage.Failed:
		c.Failure = fault
	case stage.Skipped:
		c.Skipped = &junitFault{Message: reason}
	default:
		c.Error = fault
	}
}

func seconds(started, ended time.Time) string {
	if started.IsZero() || ended.IsZero() {
		return "0"
	}
	return fmt.Sprintf("%.3f", ended.Sub(started).Seconds())
}
