package pipelines

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"gopkg.in/yaml.v3"
)

func TestSchemaFile(t *testing.T) { golden(t, "schema/pipeline-v1.json", string(JSONSchema())) }

func TestReference(t *testing.T) { golden(t, "../docs/pipeline.md", string(Reference())) }

func schemaResolved(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	var s jsonschema.Schema
	if err := json.Unmarshal(JSONSchema(), &s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func instance(t *testing.T, file string) any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatalf("no YAML, so nothing for a schema: %v", err)
	}
	encoded, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(encoded, &plain); err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestSchemaTakesGoodFiles(t *testing.T) {
	schema := schemaResolved(t)
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/good/parts/*.yaml", "testdata/suites/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		if len(files) == 0 {
			t.Fatalf("no file for %s", pattern)
		}
		for _, file := range files {
			t.Run(filepath.Base(file), func(t *testing.T) {
				if err := schema.Validate(instance(t, file)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Files whose faults a schema can see; the others are about references, order and values.
func TestSchemaRefusesBadFiles(t *testing.T) {
	schema := schemaResolved(t)
	for _, name := range []string{"collect", "events", "links", "stage-kinds", "suite", "types", "units", "unknown-keys"} {
		t.Run(name, func(t *testing.T) {
			if err := schema.Validate(instance(t, "testdata/bad/"+name+".yaml")); err == nil {
				t.Error("the schema takes it")
			}
		})
	}
}

// What the parser takes the schema must take, key by key.
func TestSchemaKnowsEveryKey(t *testing.T) {
	schema := string(JSONSchema())
	reference := string(Reference())
	var walk func(d *description)
	seen := map[string]bool{}
	keys := 0
	walk = func(d *description) {
		if d == nil || seen[d.name] && d.name != "" {
			return
		}
		seen[d.name] = true
		for _, f := range d.fields {
			keys++
			if f.doc == "" {
				t.Errorf("%s.%s has no description", d.name, f.name)
			}
			if !strings.Contains(schema, `"`+f.name+`"`) || !strings.Contains(reference, "| `"+f.name+"` |") {
				t.Errorf("%s.%s is missing in schema or reference", d.name, f.name)
			}
			walk(f.form)
		}
		walk(d.elem)
		for _, o := range d.options {
			walk(o)
		}
	}
	walk(pipelineObject.describe())
	walk(suiteObject.describe())
	if keys < 100 {
		t.Errorf("only %d keys", keys)
	}
}
