package builds

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRequired(t *testing.T) {
	const text = `module x

require k8s.io/kubernetes v1.36.3

require (
	k8s.io/api v0.36.3 // indirect
	k8s.io/kubernetes-extra v9.9.9
)

replace k8s.io/api => k8s.io/api v0.36.2
`
	for module, want := range map[string]string{
		"k8s.io/kubernetes": "v1.36.3",
		"k8s.io/api":        "v0.36.3",
		"k8s.io/missing":    "",
	} {
		if got, err := required(text, module); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", module, got, err)
		}
	}
}

// TestModules sees that every program that is wanted is a tool of the module that it is built from.
func TestModules(t *testing.T) {
	for _, m := range []Module{Kubernetes, Etcd, Kwok} {
		source := filepath.Join("..", "modules", m.Name)
		text, err := os.ReadFile(filepath.Join(source, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := required(string(text), m.Requires); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
		for _, program := range m.Programs {
			if !slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
				return strings.TrimSpace(strings.TrimPrefix(line, "tool ")) == program
			}) {
				t.Errorf("%s is no tool of the module %s", program, m.Name)
			}
		}
	}
	flags, err := Kubernetes.flags(filepath.Join("..", "modules", "kubernetes"))
	if err != nil || !strings.Contains(flags[len(flags)-1], ".gitVersion=v1.") {
		t.Errorf("Kubernetes isn't told its version: %q, %v", flags, err)
	}
}

// module writes a module with a program that says what it was linked with.
func module(t *testing.T, body string) (Builder, Module) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command")
	}
	modules := t.TempDir()
	source := filepath.Join(modules, "hello")
	for file, text := range map[string]string{
		"go.mod":          "module example.com/hello\n\ngo 1.26\n",
		"go.sum":          "",
		"program/main.go": body,
	} {
		path := filepath.Join(source, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := Module{Name: "hello", Programs: map[string]string{"greet": "example.com/hello/program"}}
	return Builder{Modules: modules, Cache: t.TempDir(), Say: func(string, ...any) {}}, m
}

func TestBuild(t *testing.T) {
	b, m := module(t, "package main\n\nfunc main() { println(\"hello\") }\n")
	var said []string
	b.Say = func(format string, arguments ...any) { said = append(said, fmt.Sprintf(format, arguments...)) }
	folder, err := b.Build(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), filepath.Join(folder, "greet")).CombinedOutput()
	if err != nil || string(output) != "hello\n" {
		t.Errorf("it says %q, %v", output, err)
	}
	if len(said) == 0 || !strings.Contains(said[0], "greet") {
		t.Errorf("nobody was told: %q", said)
	}
	said = nil
	if again, err := b.Build(t.Context(), m); err != nil || again != folder || len(said) > 0 {
		t.Errorf("a second time: %s, %v, %q", again, err, said)
	}
	if err := os.WriteFile(filepath.Join(b.Modules, "hello", "go.mod"), []byte("module example.com/hello\n\ngo 1.26\n// changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if other, err := b.Build(t.Context(), m); err != nil || other == folder {
		t.Errorf("what changed isn't built anew: %s, %v", other, err)
	}
}

func TestBuildFails(t *testing.T) {
	b, m := module(t, "package main\n\nfunc main() { undefined() }\n")
	_, err := b.Build(t.Context(), m)
	if err == nil || !strings.Contains(err.Error(), "greet") || !strings.Contains(err.Error(), "undefined: undefined") {
		t.Errorf("got %v", err)
	}
	left, globbed := filepath.Glob(filepath.Join(b.Cache, "*", "*"))
	if globbed != nil || len(left) > 0 {
		t.Errorf("what failed left %v, %v", left, globbed)
	}
}
