package pipelines

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	celenv "cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// Limits on expressions, so that neither reading nor evaluating one can run away.
const (
	maxExpressionText = 4096    // bytes of one expression
	maxExpressionSum  = 1 << 16 // bytes of the different expressions of one document
	maxExpressionCost = 20_000  // CEL's cost units of one evaluation
	maxReferences     = 64      // names in one expression
)

// slotLetters name the predeclared variables of each type: `_i0`, `_i1`, … Every reference of an expression becomes one
// before CEL sees it. So all expressions share one CEL environment, and what a reference is and whether it exists is
// settled by this package, with messages of its own.
var slotLetters = map[kind]string{
	kindBool: "b", kindInt: "i", kindFloat: "d", kindString: "s",
	kindDuration: "t", kindSize: "z", kindBandwidth: "w", kindShare: "h",
}

func celType(k kind) *cel.Type {
	switch k {
	case kindBool:
		return cel.BoolType
	case kindInt:
		return cel.IntType
	case kindFloat:
		return cel.DoubleType
	case kindString:
		return cel.StringType
	}
	return quantityTypes[k]
}

var environment = sync.OnceValues(func() (*cel.Env, error) {
	subset := celenv.NewLibrarySubset()
	for _, name := range []string{
		operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional, operators.Index, operators.In,
		operators.NotStrictlyFalse, "size", "contains", "startsWith", "endsWith", "matches",
	} {
		subset.AddIncludedFunctions(celenv.NewFunction(name))
	}
	options := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(subset)),
		cel.ParserRecursionLimit(64),
		cel.ParserErrorRecoveryLimit(4),
		cel.ParserExpressionSizeLimit(maxExpressionText),
		cel.ExpressionNodeLimit(4 * maxExpressionText),
	}
	options = append(options, operatorOptions()...)
	options = append(options, conversionOptions()...)
	for k, letter := range slotLetters {
		for i := range maxReferences {
			options = append(options, cel.Variable(slotName(letter, i), celType(k)))
		}
	}
	return cel.NewCustomEnv(options...)
})

func slotName(letter string, i int) string { return fmt.Sprintf("_%s%d", letter, i) }

// compiled is an expression that type-checks.
type compiled struct {
	program cel.Program
	slots   []slot
}

// slot is a reference and the variable that stands for it.
type slot struct {
	reference
	kind     kind
	variable string
}

// expressionFault is what is wrong with an expression, at an offset in characters.
type expressionFault struct {
	problem
	offset int
}

// compile type-checks an expression that must give a value of the kind `want`.
func compile(text string, want kind, isGroup func(string) bool, known names) (*compiled, []expressionFault) {
	if faults := refuse(text); faults != nil {
		return nil, faults
	}
	refs := references(text, isGroup)
	if len(refs) > maxReferences {
		return nil, faultAt(0, "an expression uses at most %d names, this one uses %d", maxReferences, len(refs))
	}
	c := &compiled{}
	var faults []expressionFault
	for i, r := range refs {
		k, p := known.typeOf(r)
		if p != nil {
			faults = append(faults, expressionFault{*p, utf8.RuneCountInString(text[:r.start])})
			k = kindString
		}
		if r.presence {
			k = kindBool
		}
		c.slots = append(c.slots, slot{r, k, slotName(slotLetters[k], i)})
	}
	if faults != nil {
		return nil, faults
	}
	env, err := environment()
	if err != nil {
		return nil, faultAt(0, "the expression language can't be set up: %v", err)
	}
	ast, issues := env.Compile(blank(text, refs, func(i int) string { return c.slots[i].variable }))
	if issues.Err() != nil {
		return nil, c.explain(text, issues)
	}
	if !gives(ast.OutputType(), want) {
		return nil, faultAt(0, "the expression gives %s where %s is needed%s",
			withArticle(ast.OutputType().String()), want.article(), conversionHint(ast.OutputType(), want))
	}
	c.program, err = env.Program(ast, cel.CostLimit(maxExpressionCost))
	if err != nil {
		return nil, faultAt(0, "the expression can't be prepared: %v", err)
	}
	return c, nil
}

var slotPattern = regexp.MustCompile(`(^|[^a-zA-Z0-9_])_[a-z][0-9]+\b`)

func refuse(text string) []expressionFault {
	switch {
	case strings.TrimSpace(text) == "":
		return faultAt(0, "the expression is empty")
	case len(text) > maxExpressionText:
		return faultAt(0, "an expression has at most %d bytes, this one has %d", maxExpressionText, len(text))
	}
	if m := slotPattern.FindStringIndex(text); m != nil {
		return faultAt(utf8.RuneCountInString(text[:m[0]]), "names like `_i0` are reserved")
	}
	return nil
}

func faultAt(offset int, format string, args ...any) []expressionFault {
	return []expressionFault{{problem{fmt.Sprintf(format, args...), ""}, offset}}
}

// gives says whether an expression of type t can stand where a value of the kind is needed.
func gives(t *cel.Type, k kind) bool {
	is := func(others ...*cel.Type) bool {
		return slices.ContainsFunc(others, func(o *cel.Type) bool { return t.IsExactType(o) })
	}
	switch k {
	case kindFloat:
		return is(cel.DoubleType, cel.IntType)
	case kindCores:
		return is(cel.DoubleType, cel.IntType, cel.StringType)
	case kindText:
		if is(cel.BoolType, cel.IntType, cel.DoubleType, cel.StringType) {
			return true
		}
		return slices.ContainsFunc(quantityKinds, func(q kind) bool { return is(quantityTypes[q]) })
	}
	return is(celType(k))
}

func withArticle(t string) string {
	switch t {
	case "int":
		return "an integer"
	case "double":
		return "a number"
	case "string":
		return "a text"
	case "bool":
		return "true or false"
	}
	return "a " + t
}

// conversionHint names the function that would make the type fit.
func conversionHint(t *cel.Type, want kind) string {
	switch {
	case want == kindInt && t.IsExactType(cel.DoubleType):
		return ": int(…) cuts off the fraction"
	case want == kindString && t.IsExactType(cel.IntType), want == kindString && t.IsExactType(cel.DoubleType):
		return ": string(…) makes a text of it"
	case want == kindDuration && t.IsExactType(cel.IntType):
		return ": multiply it by duration(\"1s\")"
	}
	return ""
}

var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	noOverload = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '([^']*)'`)
	operator   = regexp.MustCompile(`^_?([^_a-z]+)_?$`)
)

// explain turns what CEL says into faults, in the words of the user's text.
func (c *compiled) explain(text string, issues *cel.Issues) []expressionFault {
	var faults []expressionFault
	for _, e := range issues.Errors() {
		offset := e.Location.Column()
		if lines := strings.SplitAfter(text, "\n"); e.Location.Line() > 1 && e.Location.Line() <= len(lines) {
			offset += utf8.RuneCountInString(strings.Join(lines[:e.Location.Line()-1], ""))
		}
		p := problem{message: strings.TrimPrefix(e.Message, "Syntax error: ")}
		if m := undeclared.FindStringSubmatch(p.message); m != nil {
			p = problem{"unknown name `" + clip(m[1]) + "`", nearest(m[1], append([]string{"true", "false", "duration", "bytes", "bandwidth", "share", "string", "int", "double", "size", "has"}, roots...))}
		} else if m := noOverload.FindStringSubmatch(p.message); m != nil {
			p.message = noSuchOperation(m[1], strings.Split(strings.Trim(m[2], "()"), ", "))
		} else if strings.HasPrefix(e.Message, "Syntax error: ") {
			p.message = "not a valid expression: " + c.userText(p.message)
		}
		faults = append(faults, expressionFault{p, max(0, offset)})
		if strings.HasPrefix(e.Message, "Syntax error: ") {
			break // what follows a syntax error is noise
		}
	}
	return faults
}

// userText puts the names that the user wrote back into a message.
func (c *compiled) userText(message string) string {
	for _, s := range slices.Backward(c.slots) {
		message = strings.ReplaceAll(message, s.variable, s.text)
	}
	return message
}

func noSuchOperation(function string, args []string) string {
	for i := range args {
		args[i] = withArticle(args[i])
	}
	if m := operator.FindStringSubmatch(function); m != nil && len(args) == 2 {
		return fmt.Sprintf("`%s` can't be applied to %s and %s", m[1], args[0], args[1])
	}
	if m := operator.FindStringSubmatch(function); m != nil {
		return fmt.Sprintf("`%s` can't be applied to %s", m[1], strings.Join(args, " and "))
	}
	return fmt.Sprintf("`%s` can't be applied to %s", function, strings.Join(args, " and "))
}

// eval works the expression out. lookup gives the value of a reference; a missing one is an error only if it is needed.
// The cost is in CEL's units.
func (c *compiled) eval(lookup func(r reference) (any, bool)) (result any, cost uint64, err error) {
	activation := make(map[string]any, len(c.slots))
	for _, s := range c.slots {
		v, ok := lookup(s.reference)
		switch {
		case s.presence:
			activation[s.variable] = types.Bool(ok)
		case ok:
			activation[s.variable] = toCEL(v)
		}
	}
	out, details, err := c.program.Eval(activation)
	if details != nil && details.ActualCost() != nil {
		cost = *details.ActualCost()
	}
	if err != nil {
		if strings.Contains(err.Error(), "actual cost limit exceeded") {
			return nil, cost, fmt.Errorf("the expression takes too long: its cost is more than %d", maxExpressionCost)
		}
		return nil, cost, fmt.Errorf("%s", c.userText(err.Error()))
	}
	if v := fromCEL(out); v != nil {
		return v, cost, nil
	}
	return nil, cost, fmt.Errorf("the expression gives no single value but a %s", out.Type().TypeName())
}

// lacks says whether a name has no value, for which the fault is elsewhere.
func (c *compiled) lacks(lookup func(r reference) (any, bool)) bool {
	return slices.ContainsFunc(c.slots, func(s slot) bool {
		_, ok := lookup(s.reference)
		return !ok && !s.presence
	})
}

// fit turns what an expression gave into a value of the kind.
func (k kind) fit(v any) (any, error) {
	switch k {
	case kindFloat:
		if i, ok := v.(int64); ok {
			return float64(i), nil
		}
	case kindText:
		return textOf(plain(v)), nil
	case kindCores:
		switch v := v.(type) {
		case int64:
			return coresOf(float64(v) * 1000)
		case float64:
			return coresOf(v * 1000)
		case string:
			return parseCores(v)
		}
	case kindShare:
		if s, ok := v.(Share); ok && (s < 0 || s > 1) {
			return nil, fmt.Errorf("the share %s is outside of 0%% to 100%%", s)
		}
	}
	return v, nil
}
