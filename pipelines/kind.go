package pipelines

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// kind is the type of a scalar in the language.
type kind string

const (
	kindBool      kind = "bool"
	kindInt       kind = "int"
	kindFloat     kind = "float"
	kindString    kind = "string"
	kindDuration  kind = "duration"
	kindSize      kind = "size"
	kindBandwidth kind = "bandwidth"
	kindShare     kind = "share"
	// kindText is text that any scalar can give: params and environment variables.
	kindText kind = "text"
	// kindCores is a number of processor cores: 0.5, 2 or 50m (thousandths), held as thousandths.
	kindCores kind = "cores"
)

// parameterKinds are the types that a parameter may declare.
var parameterKinds = []string{
	string(kindBool), string(kindInt), string(kindFloat), string(kindString),
	string(kindDuration), string(kindSize), string(kindBandwidth), string(kindShare),
}

// article gives the kind with its article, for messages.
func (k kind) article() string {
	switch k {
	case kindInt:
		return "an integer"
	case kindBool:
		return "true or false"
	case kindFloat:
		return "a number"
	case kindText:
		return "a text or a number"
	case kindString:
		return "a text"
	case kindCores:
		return "a number of cores"
	}
	return "a " + string(k)
}

// parseText reads a value of the kind from text: a quantity's in YAML, anything from --set.
func (k kind) parseText(text string) (any, error) {
	switch k {
	case kindBool:
		if text == "true" || text == "false" {
			return text == "true", nil
		}
	case kindInt:
		return parseInt(text)
	case kindFloat:
		if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsInf(v, 0) && !math.IsNaN(v) {
			return v, nil
		}
	case kindString, kindText:
		return text, nil
	case kindDuration:
		return nilOnError(ParseDuration(text))
	case kindSize:
		return nilOnError(ParseSize(text))
	case kindBandwidth:
		return nilOnError(ParseBandwidth(text))
	case kindShare:
		return nilOnError(ParseShare(text))
	case kindCores:
		return parseCores(text)
	}
	return nil, fmt.Errorf("`%s` is not %s", clip(text), k.article())
}

// nilOnError keeps a zero quantity from passing for a value.
func nilOnError[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func parseInt(text string) (any, error) {
	v, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 0, 64)
	if err == nil {
		return v, nil
	}
	if strings.HasSuffix(err.Error(), strconv.ErrRange.Error()) {
		return nil, fmt.Errorf("`%s` does not fit into 64 bits", clip(text))
	}
	return nil, fmt.Errorf("`%s` is not an integer", clip(text))
}

// parseCores reads 50m, 0.5 or 2 into thousandths of a core.
func parseCores(text string) (any, error) {
	number, milli := strings.CutSuffix(text, "m")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !isNumber(number) || len(text) > maxQuantityText {
		return nil, fmt.Errorf("`%s` is not a number of cores (write it as 2, 0.5 or 500m)", clip(text))
	}
	if !milli {
		v *= 1000
	}
	return coresOf(v)
}

func coresOf(milli float64) (any, error) {
	rounded := math.Round(milli)
	if math.Abs(milli-rounded) > 1e-6 || rounded > 1e9 || rounded < 0 {
		return nil, fmt.Errorf("a number of cores is a multiple of 0.001 from 0 to 1000000")
	}
	return int64(rounded), nil
}

// clip shortens text that a message quotes.
func clip(text string) string {
	const most = 60
	text = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// parseNode reads a value of the kind from a YAML scalar. Quoted text is text, and so never a number.
func (k kind) parseNode(n *yaml.Node) (any, error) {
	tag := n.ShortTag()
	switch k {
	case kindString, kindText:
		if tag == "!!null" || tag == "!!binary" {
			return nil, fmt.Errorf("expected %s, found %s", k.article(), nodeKind(n))
		}
		return n.Value, nil
	case kindBool:
		if tag != "!!bool" {
			return nil, fmt.Errorf("expected %s, found %s", k.article(), nodeKind(n))
		}
		return k.parseText(strings.ToLower(n.Value))
	case kindInt:
		if tag == "!!float" && isNumber(strings.TrimLeft(n.Value, "+-")) && !strings.Contains(n.Value, ".") {
			return parseInt(n.Value) // too large: the parser made a float of it
		}
		if tag != "!!int" {
			return nil, fmt.Errorf("expected %s, found %s", k.article(), nodeKind(n))
		}
	case kindFloat:
		if tag == "!!int" {
			v, err := parseInt(n.Value)
			if err != nil {
				return nil, err
			}
			return float64(v.(int64)), nil
		}
		if tag != "!!float" {
			return nil, fmt.Errorf("expected %s, found %s", k.article(), nodeKind(n))
		}
	case kindCores:
		if tag == "!!null" || tag == "!!bool" {
			return nil, fmt.Errorf("expected %s, found %s", k.article(), nodeKind(n))
		}
	default:
		if tag == "!!null" || tag == "!!bool" {
			return nil, fmt.Errorf("expected %s, found %s", k.article(), nodeKind(n))
		}
	}
	return k.parseText(n.Value)
}

// inferNode reads a scalar whose type nobody declared: `80ms` is a duration, `"80ms"` in quotes is text.
func inferNode(n *yaml.Node) (kind, any, error) {
	switch n.ShortTag() {
	case "!!bool":
		v, err := kindBool.parseNode(n)
		return kindBool, v, err
	case "!!int":
		v, err := kindInt.parseNode(n)
		return kindInt, v, err
	case "!!float":
		v, err := kindFloat.parseNode(n)
		return kindFloat, v, err
	case "!!null":
		return kindString, nil, fmt.Errorf("expected a value, found nothing")
	}
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		for _, k := range []kind{kindDuration, kindShare, kindBandwidth, kindSize} {
			if v, err := k.parseText(n.Value); err == nil {
				return k, v, nil
			}
		}
	}
	return kindString, n.Value, nil
}

// nodeKind says what a node is, for messages.
func nodeKind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool", "!!int", "!!float":
		return "`" + clip(n.Value) + "`"
	}
	return "the text `" + clip(n.Value) + "`"
}

// plain turns a value of the language into what Resolved.Parameters holds: quantities become their canonical text.
func plain(v any) any {
	if q, ok := v.(fmt.Stringer); ok {
		return q.String()
	}
	return v
}

// textOf writes a value as an instance gets it.
func textOf(v any) string {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return fmt.Sprint(v)
}

// parsePlain is the inverse of plain for a known kind; it also takes what JSON makes of integers.
func (k kind) parsePlain(v any) (any, error) {
	switch v := v.(type) {
	case string:
		if k == kindBool || k == kindInt || k == kindFloat {
			break
		}
		return k.parseText(v)
	case bool:
		if k == kindBool {
			return v, nil
		}
	case int:
		return k.parsePlain(int64(v))
	case int64:
		if k == kindInt {
			return v, nil
		}
		if k == kindFloat {
			return float64(v), nil
		}
	case float64:
		if k == kindFloat {
			return v, nil
		}
		if k == kindInt && v == math.Trunc(v) && math.Abs(v) < 1<<62 {
			return int64(v), nil
		}
	}
	return nil, fmt.Errorf("`%s` is not %s", clip(fmt.Sprint(v)), k.article())
}
