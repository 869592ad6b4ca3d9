package pipelines

import (
	_ "embed"
	"fmt"
	"strings"
)

// referenceRules is the part of the reference that no table of keys can say.
//
//go:embed reference.md
var referenceRules string

// Reference is docs/pipeline.md: the rules of the language, and every key. The tables are made from the same forms as
// the parser.
func Reference() []byte {
	var b strings.Builder
	b.WriteString(strings.TrimSpace(referenceRules) + "\n")
	w := referenceWriter{out: &b, done: map[string]bool{}}
	w.section("Pipeline", pipelineObject.describe())
	w.section("Included file", stagesObject.describe())
	w.section("Suite", suiteObject.describe())
	return []byte(b.String())
}

type referenceWriter struct {
	out  *strings.Builder
	done map[string]bool
}

// section writes a document and all mappings that it is made of.
func (w *referenceWriter) section(title string, root *description) {
	fmt.Fprintf(w.out, "\n## %s\n", title)
	w.object(root, true)
}

func (w *referenceWriter) object(d *description, top bool) {
	if w.done[d.name] {
		return
	}
	w.done[d.name] = true
	if !top {
		fmt.Fprintf(w.out, "\n### %s\n", title(d.name))
	}
	fmt.Fprintf(w.out, "\n%s\n\n| key | value | default | |\n|---|---|---|---|\n", d.doc)
	for _, f := range d.fields {
		fallback := f.fallback
		if f.required {
			fallback = "**needed**"
		}
		fmt.Fprintf(w.out, "| `%s` | %s | %s | %s |\n", f.name, tableText(formText(f.form)), tableText(fallback), tableText(f.doc))
	}
	for _, f := range d.fields {
		w.nested(f.form)
	}
}

func (w *referenceWriter) nested(d *description) {
	if d.name != "" {
		w.object(d, false)
		return
	}
	if d.elem != nil {
		w.nested(d.elem)
	}
	for _, o := range d.options {
		w.nested(o)
	}
}

func title(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

// tableText makes a text fit into a table.
func tableText(text string) string { return strings.ReplaceAll(text, "|", "\\|") }

// formText says in words what a form takes.
func formText(d *description) string {
	switch {
	case d.name != "":
		return fmt.Sprintf("[%s](#%s)", d.name, strings.ReplaceAll(d.name, " ", "-"))
	case len(d.options) > 0:
		var parts []string
		for _, o := range d.options {
			parts = append(parts, formText(o))
		}
		return strings.Join(parts, " or ")
	case d.list:
		return "list of " + formText(d.elem)
	case d.elem != nil:
		return "mapping of names to " + formText(d.elem)
	case len(d.enum) > 0:
		return "`" + strings.Join(d.enum, "`, `") + "`" + orExpression(d)
	}
	texts := map[kind]string{
		kindBool: "`true` or `false`", kindInt: "integer", kindFloat: "number", kindString: "text", kindText: "text or number",
		kindDuration: "duration", kindSize: "size", kindBandwidth: "bandwidth", kindShare: "share",
		kindCores: "cores (`2`, `0.5`, `500m`)", "any": "a value of any type", "condition": "expression (bool)", "moment": "moment",
	}
	text := texts[d.kind]
	if d.pattern != "" {
		text = "name"
	}
	if d.min != nil && *d.min > 0 {
		text += fmt.Sprintf(" from %d", *d.min)
	}
	return text + orExpression(d)
}

// orExpression marks values that no expression can give.
func orExpression(d *description) string {
	if d.literal && d.pattern == "" && d.kind != "any" && d.kind != "condition" {
		return ", literally"
	}
	return ""
}
