package artifacts

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// goTool is the go command as builds use it.
type goTool struct {
	path string
	// identity tells one go command from the next.
	identity identity
	dir      string
	env      []string
}

// newGoTool finds the go command.
func (s *Store) newGoTool(order Order, dir string, cgo bool) (goTool, error) {
	path := s.goTool
	if path == "" {
		found, err := exec.LookPath("go")
		if err != nil {
			return goTool{}, unfit("there is no go command in PATH: install Go from https://go.dev/dl, or give the artifact an executable source")
		}
		path = found
	}
	info, err := os.Stat(path)
	if err != nil {
		return goTool{}, unfit("the go command %s can't be used: %v", path, err)
	}
	return goTool{path: path, identity: identify(info), dir: dir, env: s.goEnviron(order, cgo)}, nil
}

// ownVariables are those that a build sets itself: they would change what is built behind the pipeline's back.
var ownVariables = []string{"GOFLAGS", "GOWORK", "GOOS", "GOARCH", "CGO_ENABLED", "GO111MODULE", "GODEBUG", "PWD"}

// goEnviron is the environment of the go command. GOFLAGS is never empty, since an empty one would give way to the one
// in the user's `go env` file.
func (s *Store) goEnviron(order Order, cgo bool) []string {
	env := []string{}
	flags := []string{"-buildvcs=false"}
	// With its index of packages, Go 1.26 refuses a package over a file that build tags leave out and that isn't Go, though
	// only once the folder is two seconds old.
	debug := "goindex=0"
	for _, entry := range s.environ {
		name, value, _ := strings.Cut(entry, "=")
		if name == "GOFLAGS" {
			flags = append(flags, harmless(value)...)
		}
		if name == "GODEBUG" && value != "" {
			debug = value + "," + debug
		}
		if !slices.Contains(ownVariables, name) && !strings.HasPrefix(name, "GROUNDPLAN_") {
			env = append(env, entry)
		}
	}
	enabled := "0"
	if cgo {
		enabled = "1"
	}
	system := runtime.GOOS
	if order.Images {
		system = "linux"
	}
	return append(env, "GOFLAGS="+strings.Join(flags, " "), "GOWORK=off", "GO111MODULE=on", "GOOS="+system,
		"GOARCH="+cmp.Or(order.Architecture, runtime.GOARCH), "CGO_ENABLED="+enabled, "GODEBUG="+debug)
}

// harmless keeps those of the user's GOFLAGS that change how a build goes, but not what it makes.
func harmless(flags string) []string {
	return slices.DeleteFunc(strings.Fields(flags), func(flag string) bool {
		return flag != "-modcacherw" && !strings.HasPrefix(flag, "-p=")
	})
}

// run runs the go command and returns what it printed.
func (t goTool) run(ctx context.Context, stderr io.Writer, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, t.path, args...)
	cmd.Dir, cmd.Env = t.dir, t.env
	return finish(ctx, cmd, stderr)
}

// finish runs a command and returns what it printed. Cancelled, it is killed with everything that it started.
func finish(ctx context.Context, cmd *exec.Cmd, stderr io.Writer) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithUs(cmd.SysProcAttr)
	runtime.LockOSThread() // the thread that starts the command has to stay
	defer runtime.UnlockOSThread()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return out.Bytes(), err
}

// ask runs the go command for an answer on stdout. A refusal is a *Fault that quotes what it said.
func (t goTool) ask(ctx context.Context, what string, args ...string) ([]byte, error) {
	var said bytes.Buffer
	out, err := t.run(ctx, &said, args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, refusal(what, said.String())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return out, nil
}

// envNames are the variables of `go env` that change what is built.
var envNames = []string{"GOVERSION", "GOOS", "GOARCH", "GOEXPERIMENT", "GOAMD64", "GOARM64", "GOARM", "GO386", "GORISCV64", "GOPPC64",
	"GOMIPS", "GOMIPS64", "GOFIPS140", "CGO_ENABLED"}

// cgoNames are those that change it with cgo.
var cgoNames = []string{"CC", "CXX", "FC", "PKG_CONFIG", "CGO_CFLAGS", "CGO_CPPFLAGS", "CGO_CXXFLAGS", "CGO_FFLAGS", "CGO_LDFLAGS"}

// environment is what of the go command's environment goes into the program. Asking the go command costs more than all
// the rest of a build that has nothing to do, so that its answer is remembered.
func (b *goBuild) environment(ctx context.Context, modSum string) (map[string]string, error) {
	names := envNames
	if b.source.Cgo {
		names = slices.Concat(envNames, cgoNames)
	}
	key, err := b.environmentKey(modSum, names)
	if err != nil {
		return nil, err
	}
	if known := b.index.GoEnv[key]; known != nil {
		return known, nil
	}
	out, err := b.tool.ask(ctx, "asking the go command for its version", append([]string{"env", "-json"}, names...)...)
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	if err := json.Unmarshal(out, &env); err != nil {
		return nil, fmt.Errorf("understanding `go env`: %w", err)
	}
	for name, value := range env {
		if value == "" {
			delete(env, name)
		}
	}
	if cc := firstWord(env["CC"]); cc != "" {
		env["CC identity"] = compilerIdentity(cc)
	}
	remember(b.index.GoEnv, key, env)
	b.index.changed = true
	return env, nil
}

// environmentKey is a hash of all that `go env` depends on.
func (b *goBuild) environmentKey(modSum string, names []string) (string, error) {
	var relevant []string
	for _, entry := range b.tool.env {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "CGO_") || slices.Contains(names, name) {
			relevant = append(relevant, entry)
		}
	}
	slices.Sort(relevant)
	compiler := ""
	if b.source.Cgo {
		compiler = compilerIdentity("cc") + compilerIdentity("gcc") + compilerIdentity("clang")
	}
	key, err := json.Marshal([]any{b.tool.path, b.tool.identity, names, relevant, b.tool.configIdentity(), compiler, modSum})
	if err != nil {
		return "", fmt.Errorf("describing the go command: %w", err)
	}
	return hexSum(key), nil
}

// configIdentity tells whether the file that `go env -w` writes has changed.
func (t goTool) configIdentity() identity {
	value := func(name string) string {
		for _, entry := range slices.Backward(t.env) {
			if v, found := strings.CutPrefix(entry, name+"="); found {
				return v
			}
		}
		return ""
	}
	path := value("GOENV")
	if path == "" {
		config := value("XDG_CONFIG_HOME")
		if config == "" {
			config = filepath.Join(value("HOME"), ".config")
		}
		path = filepath.Join(config, "go", "env")
	}
	info, err := os.Stat(path)
	if err != nil {
		return identity{}
	}
	return identify(info)
}

// compilerIdentity tells one C compiler from the next by its file.
func compilerIdentity(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s %d %d;", path, info.Size(), info.ModTime().UnixNano())
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	return word
}
