package testground

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	encoder "github.com/pelletier/go-toml/v2"

	"github.com/groundplan/groundplan/pipelines/testground/internal/toml"
)

// expand works a composition's template out. ok is false when that failed, and then there is a fault.
func (im *importer) expand(file File) (text string, ok bool) {
	if !strings.Contains(string(file.Data), "{{") {
		return string(file.Data), true
	}
	t, err := template.New("composition").Funcs(im.functions()).Parse(string(file.Data))
	if err != nil {
		im.fault(file.Name, templateLine(err), "its template: %s", templateMessage(err))
		return "", false
	}
	out := limited{}
	if err := t.Execute(&out, struct{ Env map[string]string }{im.in.Env}); err != nil {
		im.fault(file.Name, templateLine(err), "its template: %s", templateMessage(err))
		return "", false
	}
	im.report.add(Row{file.Name, 1, "{{…}}", Changed, "the template was worked out: its values are fixed now, and lines are those of its result"})
	return out.text.String(), true
}

// limited bounds what a template makes.
type limited struct{ text strings.Builder }

func (l *limited) Write(p []byte) (int, error) {
	if l.text.Len()+len(p) > maxFileBytes {
		return 0, fmt.Errorf("it makes more than %d bytes", maxFileBytes)
	}
	return l.text.Write(p)
}

// functions are those that Testground adds to Go's own.
func (im *importer) functions() template.FuncMap {
	return template.FuncMap{
		"pick": func(m map[string]any, key string) map[string]any { return map[string]any{key: m[key]} },
		"toml": func(m map[string]any) (string, error) {
			text, err := encoder.Marshal(m)
			return string(text), err
		},
		"split": func(text string) []string { return strings.Split(text, ",") },
		"atoi":  strconv.Atoi,
		"withEnv": func(m map[string]any) map[string]any {
			m = maps.Clone(m)
			if m == nil {
				m = map[string]any{}
			}
			m["Env"] = im.in.Env
			return m
		},
		"load_resource": im.resource,
	}
}

func (im *importer) resource(name string) (map[string]any, error) {
	if im.in.Resource == nil {
		return nil, fmt.Errorf("load_resource %s: no files can be read here", name)
	}
	data, err := im.in.Resource(path.Clean(name))
	if err != nil {
		return nil, fmt.Errorf("load_resource: %w", err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("load_resource %s: it has more than %d bytes", name, maxFileBytes)
	}
	t, err := toml.Parse(string(data))
	if err != nil {
		return nil, fmt.Errorf("load_resource %s:%w", name, err)
	}
	return t.Native(), nil
}

var (
	templatePlace    = regexp.MustCompile(`^template: composition:(\d+)(:\d+)?: `)
	templateUnknown  = regexp.MustCompile(`^function "([^"]*)" not defined$`)
	templateExecuted = regexp.MustCompile(`^executing "composition" at `)
)

func templateLine(err error) int {
	if m := templatePlace.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1])
		return line
	}
	return 0
}

func templateMessage(err error) string {
	var failed template.ExecError
	if errors.As(err, &failed) {
		err = failed.Err
	}
	text := templateExecuted.ReplaceAllString(templatePlace.ReplaceAllString(err.Error(), ""), "at ")
	if m := templateUnknown.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("there is no function %s: Testground has atoi, load_resource, pick, split, toml, withEnv and those of Go's text/template", m[1])
	}
	return text
}
