package testground

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// pipeline is one that is about to be written.
type pipeline struct {
	file, name, about string
	instances         int // what the groups must add up to; 0: not said
	parameters        []parameter
	groups            []group
	artifacts         []artifact
	runs              []stage
}

// parameter is a parameter of the pipeline; value is YAML.
type parameter struct{ name, kind, value, about string }

// group is a set of instances.
type group struct {
	name, artifact string
	instances      string // YAML
	note           string // a comment on the number
	cpu, memory    string
	outcome        string
	params         map[string]string
	env            map[string]string
	ports          map[string]string
	profiles       map[string]string
	// unpackable are the parameters that Testground's packed form can't carry.
	unpackable []string
}

type artifact struct {
	name   string
	source source
}

// stage is one run.
type stage struct {
	name, testCase string
	place          string // the stage that places its groups, where there are several runs
	groups         []string
	params         []field
	timeout, why   string
}

// field is a key with its value in YAML.
type field struct{ key, value string }

// inline writes fields as one mapping on one line.
func inline(fields []field) string {
	parts := make([]string, 0, len(fields))
	for _, f := range fields {
		parts = append(parts, f.key+": "+f.value)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// write writes the pipeline, with comments on what it can't say.
func (p *pipeline) write(rows []Row) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "pipeline: %s\ndescription: %s\n", text(p.name), text(p.about))
	writeComments(&b, rows)
	if p.instances > 0 {
		fmt.Fprintf(&b, "instances: %d\n", p.instances)
	}
	p.writeParameters(&b)
	p.writeGroups(&b)
	p.writeStages(&b)
	return []byte(b.String())
}

// writeComments names what the pipeline can't say.
func writeComments(b *strings.Builder, rows []Row) {
	heading := "\n# What Testground's files say and this pipeline doesn't:\n"
	for _, r := range rows {
		if r.State == Lost || r.State == Unknown {
			b.WriteString(heading)
			heading = ""
			fmt.Fprintf(b, "# - %s (%s): %s\n", comment(r.Key), comment(r.place()), comment(r.Became))
		}
	}
}

// place is where a row's key stands.
func (r Row) place() string {
	if r.Line == 0 {
		return r.File
	}
	return fmt.Sprintf("%s:%d", r.File, r.Line)
}

// comment makes a text fit for one line.
func comment(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffd {
			return ' '
		}
		return r
	}, text)
}

func (p *pipeline) writeParameters(b *strings.Builder) {
	if len(p.parameters) == 0 {
		return
	}
	b.WriteString("\nparameters:\n")
	for _, one := range p.parameters {
		if one.about == "" && one.kind == "" {
			fmt.Fprintf(b, "  %s: %s\n", one.name, one.value)
			continue
		}
		var fields []field
		if one.kind != "" {
			fields = append(fields, field{"type", one.kind})
		}
		fields = append(fields, field{"default", one.value})
		if one.about != "" {
			fields = append(fields, field{"description", quoted(one.about)})
		}
		fmt.Fprintf(b, "  %s: %s\n", one.name, inline(fields))
	}
}

func (p *pipeline) writeGroups(b *strings.Builder) {
	b.WriteString("\ngroups:\n")
	for _, g := range p.groups {
		fields := []field{{"artifact", g.artifact}, {"instances", g.instances}}
		add := func(key, value string) {
			if value != "" {
				fields = append(fields, field{key, value})
			}
		}
		add("cpu", g.cpu)
		add("memory", g.memory)
		add("outcome", g.outcome)
		for _, m := range []struct {
			key    string
			values map[string]string
		}{{"parameters", g.params}, {"env", g.env}, {"ports", g.ports}, {"profiles", g.profiles}} {
			if len(m.values) > 0 {
				add(m.key, mapping(m.values))
			}
		}
		if len(g.unpackable) > 0 {
			add("testground", "false")
		}
		writeGroup(b, g, fields)
	}
}

// lineWidth is how wide a line may be before a mapping is written key by key.
const lineWidth = 110

func writeGroup(b *strings.Builder, g group, fields []field) {
	line := fmt.Sprintf("  %s: %s", g.name, inline(fields))
	if len(line) <= lineWidth && len(g.unpackable) == 0 {
		b.WriteString(line)
		if g.note != "" {
			b.WriteString(" # " + g.note)
		}
		b.WriteByte('\n')
		return
	}
	fmt.Fprintf(b, "  %s:\n", g.name)
	for _, f := range fields {
		fmt.Fprintf(b, "    %s: %s", f.key, f.value)
		switch {
		case f.key == "instances" && g.note != "":
			b.WriteString(" # " + g.note)
		case f.key == "testground":
			b.WriteString(" # Testground's SDKs drop " + comment(strings.Join(g.unpackable, ", ")) + ", for the = or | in it")
		}
		b.WriteByte('\n')
	}
}

func (p *pipeline) writeStages(b *strings.Builder) {
	b.WriteString("\nstages:\n  - name: build\n    build:\n")
	for _, a := range p.artifacts {
		fmt.Fprintf(b, "      %s: {%s: %s}\n", a.name, a.source.kind, inline(a.source.fields))
	}
	single := len(p.runs) == 1
	if single {
		b.WriteString("\n  - name: place\n    schedule: {}\n")
	}
	for _, r := range p.runs {
		if !single {
			fmt.Fprintf(b, "\n  - name: %s\n    schedule: {groups: %s}\n", r.place, list(r.groups))
		}
		fields := []field{{"case", text(r.testCase)}}
		if !single {
			fields = append(fields, field{"groups", list(r.groups)})
		}
		fmt.Fprintf(b, "\n  - name: %s\n", r.name)
		writeRun(b, fields, r.params)
		fmt.Fprintf(b, "    timeout: %s", r.timeout)
		if r.why != "" {
			b.WriteString(" # " + r.why)
		}
		b.WriteByte('\n')
		if !single {
			b.WriteString("    onFailure: continue\n")
		}
	}
	b.WriteString("\n  - name: gather\n    collect: {outputs: true}\n")
}

func writeRun(b *strings.Builder, fields, params []field) {
	all := fields
	if len(params) > 0 {
		all = append(slices.Clone(fields), field{"params", inline(params)})
	}
	if line := "    run: " + inline(all); len(line) <= lineWidth {
		b.WriteString(line + "\n")
		return
	}
	b.WriteString("    run:\n")
	for _, f := range fields {
		fmt.Fprintf(b, "      %s: %s\n", f.key, f.value)
	}
	if len(params) > 0 {
		b.WriteString("      params:\n")
	}
	for _, f := range params {
		fmt.Fprintf(b, "        %s: %s\n", f.key, f.value)
	}
}

// allocator gives each name once.
type allocator struct {
	taken     map[string]bool
	separator string
}

// name returns the wish, or the wish with a number when it is taken.
func (a *allocator) name(wish string) string {
	if a.taken == nil {
		a.taken = map[string]bool{}
	}
	separator := a.separator
	if separator == "" {
		separator = "-"
	}
	name := wish
	for n := 2; a.taken[name]; n++ {
		suffix := separator + strconv.Itoa(n)
		name = wish[:min(len(wish), longestName-len(suffix))] + suffix
	}
	a.taken[name] = true
	return name
}

// longestName is how long names are.
const longestName = 63

var (
	notInNames  = regexp.MustCompile(`[^a-z0-9]+`)
	plainNumber = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,17})$`)
)

// identifier makes a name of a text; fallback where nothing of it is left.
func identifier(text, fallback string) string {
	name := notInNames.ReplaceAllString(strings.ToLower(text), "-")
	name = strings.Trim(name[:min(len(name), longestName)], "-")
	name = strings.Trim(name, "-")
	if name == "" {
		return fallback
	}
	return name
}

// text writes a text as YAML that stays one, also inside of flow mappings.
func text(value string) string {
	if plainNumber.MatchString(value) {
		return value // taken as it is written
	}
	if strings.HasPrefix(value, "=") {
		value = "=" + strconv.Quote(value) // an expression that is this text
	}
	return quoted(value)
}

// quoted writes a text as YAML with quotes where they are needed.
func quoted(value string) string {
	node := yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}}}
	out, err := yaml.Marshal(&node)
	line := strings.TrimSpace(string(out))
	if err != nil || strings.Contains(line, "\n") || len(line) < 2 {
		return strconv.Quote(value)
	}
	return line[1 : len(line)-1]
}

func texts(values []string) string {
	parts := make([]string, 0, len(values))
	for _, v := range values {
		parts = append(parts, text(v))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func list(values []string) string { return "[" + strings.Join(values, ", ") + "]" }

func mapping(values map[string]string) string {
	var fields []field
	for _, key := range sortedKeys(values) {
		fields = append(fields, field{quoted(key), text(values[key])})
	}
	return inline(fields)
}

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
