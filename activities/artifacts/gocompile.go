package artifacts

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

// compile puts the program into folder.
func (b *goBuild) compile(ctx context.Context, folder string, in goInputs) error {
	scratch := filepath.Join(folder, "scratch")
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return fmt.Errorf("making a folder to build in: %w", err)
	}
	defer os.RemoveAll(scratch)
	inScratch := *b
	inScratch.tool.env = append(slices.Clone(b.tool.env), "GOTMPDIR="+scratch) // a compiler that is killed leaves nothing elsewhere
	args := []string{"build", "-trimpath", "-buildvcs=false"}
	if len(in.Replace)+len(in.Require)+len(in.Modfile) > 0 {
		flags, err := inScratch.overriding(ctx, scratch, in)
		if err != nil {
			return err
		}
		args = append(args, flags...)
	}
	if len(in.Tags) > 0 {
		args = append(args, "-tags="+strings.Join(in.Tags, ","))
	}
	program := filepath.Join(folder, programName)
	args = append(args, in.Flags...)
	args = append(args, "-o", program, packageArgument(in.Package))
	if err := inScratch.compiler(ctx, args); err != nil {
		return err
	}
	return checkProgram(program, in)
}

// packageArgument is a package as the go command wants it.
func packageArgument(pkg string) string {
	if pkg == "" {
		return "."
	}
	return pkg
}

// withoutCgo matches what the compiler says of files outside of the module whose other half is left out without cgo.
var withoutCgo = regexp.MustCompile(`(?m)^(/|\.\./).*: undefined: |build constraints exclude all Go files`)

// compiler runs the compiler and keeps what it says.
func (b *goBuild) compiler(ctx context.Context, args []string) error {
	log, err := b.order.log()
	if err != nil {
		return err
	}
	defer log.Close()
	var said bytes.Buffer
	_, err = b.tool.run(ctx, io.MultiWriter(&said, log), args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		fault := refusal("", said.String())
		if !b.source.Cgo && withoutCgo.MatchString(said.String()) {
			fault.Reason += " (cgo is off: is that a library that needs `cgo: true`?)"
		}
		return fault
	}
	if err != nil {
		return fmt.Errorf("compiling %s: %w", b.order.Name, err)
	}
	return nil
}

// log is the file for what a compiler says; the null device when nobody wants it.
func (o Order) log() (*os.File, error) {
	if o.Log == "" {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	if err := os.MkdirAll(filepath.Dir(o.Log), 0o755); err != nil {
		return nil, fmt.Errorf("keeping the compiler's output: %w", err)
	}
	file, err := os.Create(o.Log)
	if err != nil {
		return nil, fmt.Errorf("keeping the compiler's output: %w", err)
	}
	return file, nil
}

// surroundings matches what the go command says when not the source is at fault.
var surroundings = regexp.MustCompile(`(?i)dial tcp|i/o timeout|connection re(fused|set)|no such host|TLS handshake timeout|` +
	`: 5\d\d |unexpected EOF|no space left on device|cannot allocate memory|signal: killed|module lookup disabled by GOPROXY=off|` +
	`running go .*GOTOOLCHAIN=local|toolchain not available|network is unreachable|executable file not found`)

// quoted is how many lines of a compiler's output a reason holds.
const quoted = 3

// refusal is the fault for what the go command printed before it failed.
func refusal(doing, said string) *Fault {
	var lines []string
	more := 0
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", strings.HasPrefix(line, "# "), strings.HasPrefix(line, "go: downloading "), strings.HasPrefix(line, "go: finding "):
		case len(lines) == quoted:
			more++
		default:
			lines = append(lines, line)
		}
	}
	reason := strings.ReplaceAll(strings.Join(lines, "; "), ":; ", ": ")
	if reason == "" {
		reason = "the go command failed and said nothing"
	}
	if more == 1 {
		reason += " (and 1 more line)"
	} else if more > 1 {
		reason += fmt.Sprintf(" (and %d more lines)", more)
	}
	if doing != "" {
		reason = doing + ": " + reason
	}
	return &Fault{Reason: reason, Invalid: surroundings.MatchString(said)}
}

// checkProgram makes sure that what was built is a program, and holds the module versions that the pipeline asks for: a
// version-mix test of a version that isn't in it would pass for nothing.
func checkProgram(path string, in goInputs) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return wrong("%s is not a main package: there is nothing to run", packageArgument(in.Package))
	}
	deps := map[string]*debug.Module{}
	for _, dep := range info.Deps {
		deps[dep.Path] = dep
	}
	for _, path := range slices.Sorted(maps.Keys(in.Replace)) {
		dep := deps[path]
		switch {
		case dep == nil:
			return wrong("replace names %s, but nothing of that module goes into the program", path)
		case dep.Replace == nil || !isFolder(in.Replace[path]) && dep.Replace.Path+"@"+dep.Replace.Version != in.Replace[path]:
			return wrong("replace asks for %s in place of %s, but the program holds %s", in.Replace[path], path, held(dep))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(in.Require)) {
		dep := deps[path]
		switch {
		case dep == nil:
			return wrong("require names %s, but nothing of that module goes into the program", path)
		case dep.Path+"@"+dep.Version != in.Require[path]:
			return wrong("require asks for %s, but the program holds %s, which another module needs: replace forces a version", in.Require[path], held(dep))
		}
	}
	return nil
}

func held(dep *debug.Module) string {
	if dep.Replace != nil {
		return dep.Replace.Path + "@" + dep.Replace.Version
	}
	return dep.Path + "@" + dep.Version
}
