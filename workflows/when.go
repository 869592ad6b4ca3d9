package workflows

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// keptBack says why a stage doesn't run now that its turn has come; empty: it does.
func (e *execution) keptBack(ctx workflow.Context, s pipelines.Stage) (string, error) {
	if e.aborted != "" && !decidesAlone(s.When) {
		return fmt.Sprintf("stage %q did not pass, and ended the run", e.aborted), nil
	}
	if s.When == "" {
		return "", nil
	}
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		StartToCloseTimeout: evaluateTimeout,
		RetryPolicy:         errorRetry(3),
	})
	p := e.in.Pipeline
	var yes bool
	err := workflow.ExecuteLocalActivity(ctx, stage.ActivityEvaluate, stage.Evaluate{
		Run: e.in.Run, Expr: s.When, Parameters: p.Parameters, Cell: p.Cell, Env: p.Env, Groups: p.Groups, Stages: e.results,
	}).Get(ctx, &yes)
	if err != nil {
		return "", err
	}
	if !yes {
		return fmt.Sprintf("`when: %s` said no", s.When), nil
	}
	return "", nil
}

// decidesAlone says whether a `when` is asked also after an abort: it is `true`, or it looks at `stages`.
func decidesAlone(when string) bool {
	return strings.TrimSpace(when) == "true" || mentions(when, "stages")
}

// mentions says whether a CEL expression holds name as an identifier of its own: not within a string, a comment or a
// longer identifier, and not as a field of something else.
func mentions(expr, name string) bool {
	before := byte(0) // the last byte that wasn't blank
	for i := 0; i < len(expr); {
		c := expr[i]
		switch {
		case c == '"' || c == '\'':
			raw := i > 0 && (expr[i-1] == 'r' || expr[i-1] == 'R')
			i += literal(expr[i:], raw)
			before = c
		case strings.HasPrefix(expr[i:], "//"):
			_, rest, _ := strings.Cut(expr[i:], "\n")
			i = len(expr) - len(rest)
		case letter(c):
			word := i
			for i < len(expr) && letter(expr[i]) {
				i++
			}
			if expr[word:i] == name && before != '.' {
				return true
			}
			before = c
		default:
			if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
				before = c
			}
			i++
		}
	}
	return false
}

// literal is the length of the string literal that s begins with, quotes counted in; all of s when it doesn't end.
func literal(s string, raw bool) int {
	quote := s[:1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s, triple) {
		quote = triple
	}
	for i := len(quote); i < len(s); i++ {
		if s[i] == '\\' && !raw {
			i++
		} else if strings.HasPrefix(s[i:], quote) {
			return i + len(quote)
		}
	}
	return len(s)
}

func letter(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
