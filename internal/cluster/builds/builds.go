// Package builds makes the programs of a development cluster from the modules that name their versions, and keeps them.
package builds

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Module is one of the modules beside this package whose tools are built.
type Module struct {
	// Name is its folder.
	Name string
	// Requires is the path of the module that its programs' version is that of.
	Requires string
	// Programs are the programs by the names that they are wanted under; their packages' last element may be another.
	Programs map[string]string
	// Version is the variable that the version is linked into, if the programs need to be told.
	Version string
}

// What a cluster is made of.
var (
	Kubernetes = Module{
		Name: "kubernetes", Requires: "k8s.io/kubernetes", Version: "k8s.io/component-base/version",
		Programs: map[string]string{
			"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
			"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
			"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
			"kubelet":                 "k8s.io/kubernetes/cmd/kubelet",
			"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
		},
	}
	Etcd = Module{Name: "etcd", Requires: "go.etcd.io/etcd/server/v3", Programs: map[string]string{"etcd": "go.etcd.io/etcd/server/v3"}}
	Kwok = Module{Name: "kwok", Requires: "sigs.k8s.io/kwok", Programs: map[string]string{"kwok": "sigs.k8s.io/kwok/cmd/kwok"}}
)

// Builder builds modules.
type Builder struct {
	// Modules is the folder of the modules, Cache the one in which programs are kept.
	Modules, Cache string
	// Say tells a person how it goes.
	Say func(format string, arguments ...any)
}

// Build makes the programs of a module unless they are there, and returns the folder that holds them.
func (b Builder) Build(ctx context.Context, m Module) (string, error) {
	source := filepath.Join(b.Modules, m.Name)
	flags, err := m.flags(source)
	if err != nil {
		return "", err
	}
	key, err := key(ctx, source, flags)
	if err != nil {
		return "", fmt.Errorf("finding the version of %s: %w", m.Name, err)
	}
	folder := filepath.Join(b.Cache, m.Name+"-"+key, "bin")
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		return "", err
	}
	partial, err := os.MkdirTemp(filepath.Dir(folder), "partial-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(partial)
	if err := os.Chmod(partial, 0o755); err != nil {
		return "", err
	}
	for name, program := range m.Programs {
		if err := b.compile(ctx, source, filepath.Join(partial, name), program, flags); err != nil {
			return "", fmt.Errorf("building %s: %w", name, err)
		}
	}
	if err := os.Rename(partial, folder); err != nil {
		if _, there := os.Stat(folder); there == nil {
			return folder, nil // somebody else built it meanwhile
		}
		return "", err
	}
	return folder, nil
}

// compile has the go command build one program, and says every while how far it is.
func (b Builder) compile(ctx context.Context, source, out, program string, flags []string) error {
	began := time.Now()
	b.Say("building %s (minutes at the first time)", filepath.Base(out))
	arguments := append([]string{"build", "-v", "-o", out}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(arguments, program)...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOWORK=off")
	output, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said := b.watch(output, filepath.Base(out))
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n\t%s", err, strings.Join(said, "\n\t"))
	}
	b.Say("built %s in %.0f s", filepath.Base(out), time.Since(began).Seconds())
	return nil
}

// watch counts the packages that the go command names as it compiles them, and returns the last lines.
func (b Builder) watch(output io.Reader, program string) []string {
	const every, kept = 15 * time.Second, 10
	var last []string
	next, packages := time.Now().Add(every), 0
	for lines := bufio.NewScanner(output); lines.Scan(); {
		packages++
		last = append(last, lines.Text())
		last = last[max(0, len(last)-kept):]
		if time.Now().After(next) {
			b.Say("building %s: %d packages so far, now %s", program, packages, lines.Text())
			next = time.Now().Add(every)
		}
	}
	return last
}

// flags are the flags that programs are built with.
func (m Module) flags(source string) ([]string, error) {
	link := "-s -w"
	if m.Version != "" {
		text, err := os.ReadFile(filepath.Join(source, "go.mod"))
		if err != nil {
			return nil, err
		}
		version, err := required(string(text), m.Requires)
		if err != nil {
			return nil, err
		}
		parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
		if len(parts) < 3 {
			return nil, fmt.Errorf("%s %s is no version of three parts", m.Requires, version)
		}
		link += fmt.Sprintf(" -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean",
			m.Version, version, parts[0], parts[1])
	}
	return []string{"-trimpath", "-buildvcs=false", "-ldflags", link}, nil
}

// required is the version of a module that a go.mod requires.
func required(text, module string) (string, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && fields[0] == module && strings.HasPrefix(fields[1], "v") {
			return fields[1], nil
		}
	}
	return "", fmt.Errorf("the go.mod requires no %s", module)
}

// key names what is built: another one when a version, the compiler or a flag has changed.
func key(ctx context.Context, source string, flags []string) (string, error) {
	h := sha256.New()
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(source, file))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", file, len(text), text)
	}
	version, err := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOARCH").Output()
	if err != nil {
		return "", fmt.Errorf("asking the go command for its version: %w", err)
	}
	fmt.Fprintf(h, "%s\n%q", version, flags)
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// Program builds a package of this repository, and puts it into a folder.
func Program(ctx context.Context, repository, pkg, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// Repository is the folder of this package's source, which holds the modules: the go command knows it where the caller
// stands in the repository.
func Repository(ctx context.Context) (string, error) {
	const path = "github.com/groundplan/groundplan/internal/cluster"
	output, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("finding the sources of the cluster (go to the repository first): %w", err)
	}
	return strings.TrimSpace(string(output)), nil
}
