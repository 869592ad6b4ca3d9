package pipelines

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Patterns of quantities in the schema. The parser says more, and says it better; these are for editors.
var kindPatterns = map[kind]string{
	kindDuration:  `^-?([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*$`,
	kindSize:      `^([0-9]+(\.[0-9]*)?|\.[0-9]+)(` + unitNames(sizeUnits) + `)$`,
	kindBandwidth: `^([0-9]+(\.[0-9]*)?|\.[0-9]+)(` + unitNames(bandwidthUnits) + `)$`,
	kindShare:     `^([0-9]+(\.[0-9]*)?|\.[0-9]+)%$`,
	kindCores:     `^([0-9]+(\.[0-9]*)?|\.[0-9]+)m?$`,
}

func unitNames(units []unit) string {
	names := make([]string, 0, len(units))
	for _, u := range units {
		names = append(names, u.name)
	}
	return strings.Join(names, "|")
}

// JSONSchema is the draft-07 schema of a document: a pipeline, a suite or a file that is included, told apart by its
// first key. It is made from the same forms as the parser.
func JSONSchema() []byte {
	s := schemaWriter{definitions: map[string]any{}}
	root := map[string]any{
		"$schema":     "http://json-schema.org/draft-07/schema#",
		"title":       "groundplan v1",
		"description": "A groundplan pipeline, suite, or file of stages to include.",
		"type":        "object",
		"if":          map[string]any{"required": []string{"suite"}},
		"then":        s.schema(suiteObject.describe()),
		"else": map[string]any{
			"if":   map[string]any{"required": []string{"pipeline"}},
			"then": s.schema(pipelineObject.describe()),
			"else": s.schema(stagesObject.describe()),
		},
	}
	root["definitions"] = s.definitions
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(root); err != nil {
		panic("pipelines: the schema can't be written: " + err.Error()) // maps, slices and texts always can
	}
	return b.Bytes()
}

type schemaWriter struct {
	definitions map[string]any
}

// schema gives the schema of a form; mappings with fixed keys become definitions.
func (s *schemaWriter) schema(d *description) map[string]any {
	switch {
	case d.name != "":
		return s.object(d)
	case len(d.options) > 0:
		return map[string]any{"anyOf": s.options(d)}
	case d.list:
		return map[string]any{"type": "array", "items": s.schema(d.elem)}
	case d.elem != nil:
		return map[string]any{
			"type": "object", "additionalProperties": false,
			"patternProperties": map[string]any{d.keys: s.schema(d.elem)},
		}
	}
	return scalarSchema(d)
}

func (s *schemaWriter) options(d *description) []any {
	var all []any
	for _, o := range d.options {
		all = append(all, s.schema(o))
	}
	return all
}

func (s *schemaWriter) object(d *description) map[string]any {
	name := strings.ReplaceAll(d.name, " ", "-")
	ref := map[string]any{"$ref": "#/definitions/" + name}
	if _, done := s.definitions[name]; done {
		return ref
	}
	out := map[string]any{"type": "object", "description": d.doc, "additionalProperties": false}
	s.definitions[name] = out
	properties := map[string]any{}
	var required []string
	for _, f := range d.fields {
		property := s.schema(f.form)
		if _, isRef := property["$ref"]; isRef {
			property = map[string]any{"allOf": []any{property}} // draft-07 ignores what stands beside $ref
		} else {
			property = maps.Clone(property)
		}
		property["description"] = f.doc
		if f.fallback != "" {
			property["description"] = f.doc + " Default: " + f.fallback + "."
		}
		properties[f.name] = property
		if f.required {
			required = append(required, f.name)
		}
	}
	out["properties"] = properties
	if required != nil {
		out["required"] = required
	}
	return ref
}

var scalars = []string{"string", "number", "boolean"}

// scalarSchema gives the schema of a single value; unless it is literal, an expression may stand in its place.
func scalarSchema(d *description) map[string]any {
	value := map[string]any{"type": "string"}
	switch d.kind {
	case kindBool:
		value = map[string]any{"type": "boolean"}
	case kindInt:
		value = map[string]any{"type": "integer"}
		if d.min != nil {
			value["minimum"] = *d.min
		}
	case kindFloat:
		value = map[string]any{"type": "number"}
	case kindText, "any", "condition":
		return map[string]any{"type": scalars}
	case "moment":
		return value
	case kindString:
		value = stringSchema(d)
	case kindCores:
		value = map[string]any{"anyOf": []any{
			map[string]any{"type": "number", "minimum": 0}, map[string]any{"type": "string", "pattern": kindPatterns[kindCores]}}}
	default:
		value["pattern"] = kindPatterns[d.kind]
	}
	if d.literal {
		return value
	}
	expression := map[string]any{"type": "string", "pattern": "^="}
	if all, ok := value["anyOf"].([]any); ok {
		return map[string]any{"anyOf": append(slices.Clone(all), expression)}
	}
	return map[string]any{"anyOf": []any{value, expression}}
}

// stringSchema allows numbers too: what is meant as text is often written as 1.10.
func stringSchema(d *description) map[string]any {
	switch {
	case len(d.enum) > 0:
		return map[string]any{"enum": d.enum}
	case d.pattern != "":
		return map[string]any{"type": []string{"string", "number"}, "pattern": d.pattern}
	}
	return map[string]any{"type": scalars}
}
