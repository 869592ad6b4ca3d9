package testground

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/groundplan/groundplan/pipelines"
)

// seeds are the files of the golden archives.
func seeds(f *testing.F, add func(given map[string][]byte)) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		given, _ := split(archive)
		add(given)
	}
}

// imports: whatever the input, it is refused with faults, or what is made is a pipeline that its reader takes.
func imports(t *testing.T, in Input) {
	result, err := Import(in)
	if err != nil {
		var faults Faults
		if !errors.As(err, &faults) || len(faults) == 0 {
			t.Fatalf("%T %v", err, err)
		}
		return
	}
	files := map[string]bool{}
	for _, p := range result.Pipelines {
		if files[p.File] {
			t.Fatalf("%s is made twice", p.File)
		}
		files[p.File] = true
		if _, err := pipelines.Open(pipelines.Bundle{File: p.File, Files: map[string]string{p.File: string(p.Text)}}); err != nil {
			t.Fatalf("%v\n%s", err, p.Text)
		}
	}
}

func FuzzManifest(f *testing.F) {
	seeds(f, func(given map[string][]byte) { f.Add(given["manifest.toml"], given["main.go"]) })
	f.Fuzz(func(t *testing.T, manifest, source []byte) {
		imports(t, Input{Manifest: File{"manifest.toml", manifest}, Sources: []File{{"main.go", source}}})
	})
}

func FuzzComposition(f *testing.F) {
	manifest := []byte("name = \"p\"\n[builders.\"exec:go\"]\n[builders.\"docker:generic\"]\n[runners.\"local:exec\"]\n[[testcases]]\nname = \"meet\"\nparams = { a = { default = 1 } }\n")
	seeds(f, func(given map[string][]byte) {
		if text := given["compositions/main.toml"]; text != nil {
			f.Add(text)
		}
	})
	f.Add([]byte("[global]\ncase = \"meet\"\ntotal_instances = 9\n[global.run_config]\nexposed_ports = { a = \"1\" }\n[[groups]]\nid = \"a\"\nresources = { cpu = \"1\", memory = \"5\" }\ninstances = { percentage = 1 }\n"))
	f.Fuzz(func(t *testing.T, composition []byte) {
		imports(t, Input{Manifest: File{"manifest.toml", manifest}, Composition: &File{"c.toml", composition}})
	})
}
