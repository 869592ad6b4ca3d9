package artifacts

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// dockerfileInputs is all that goes into an image that is built, as far as it can be known: what its instructions fetch
// is what was there when it was first built.
type dockerfileInputs struct {
	Kind     string            `json:"kind"`
	Format   int               `json:"format"` // grows when the way of building changes
	Platform string            `json:"platform"`
	File     string            `json:"file"`
	Target   string            `json:"target,omitempty"`
	Args     map[string]string `json:"args,omitempty"`
	Context  tree              `json:"context"`
}

// dockerfileBuild is one build of an image under way.
type dockerfileBuild struct {
	order   Order
	source  pipelines.DockerfileSource
	context string // absolute folder
	file    string // absolute path
	index   *index
	skip    string // the state folder, which is none of the context's business
}

// buildDockerfile has BuildKit make an image. It goes into the store as a file, and from there to the registry as every
// other image, so that neither BuildKit nor its machine need know the registry or have credentials for it.
func (s *Store) buildDockerfile(ctx context.Context, order Order, source pipelines.DockerfileSource) (stage.Artifact, error) {
	b := dockerfileBuild{order: order, source: source, skip: filepath.Dir(s.dir)}
	if fault := b.look(); fault != nil {
		return stage.Artifact{}, fault
	}
	b.index = openIndex(s.indexPath(b.context))
	digest, inputs, err := b.describe()
	if err != nil {
		return stage.Artifact{}, err
	}
	path, cached, err := s.obtain(ctx, order, digest, inputs, func(folder string) error {
		buildctl, fault := s.buildctl()
		if fault != nil {
			return fault
		}
		order.note("building the image of " + order.Name)
		if err := b.build(ctx, s, buildctl, filepath.Join(folder, imageName)); err != nil {
			return err
		}
		if after, _, err := b.describe(); err != nil || after != digest {
			return errors.Join(fmt.Errorf("the build context of %s changed while it was built", order.Name), err)
		}
		return nil
	})
	if err != nil {
		return stage.Artifact{}, err
	}
	return stage.Artifact{Name: order.Name, Digest: digest, Archive: path, Cached: cached}, nil
}

// look finds the context and the Dockerfile.
func (b *dockerfileBuild) look() *Fault {
	var fault *Fault
	if b.context, fault = inside(b.order.Root, b.source.Context); fault != nil {
		return fault
	}
	if info, err := os.Stat(b.context); err != nil || !info.IsDir() {
		return wrong("the build context %s is not a folder", b.source.Context)
	}
	if b.file, fault = inside(b.order.Root, filepath.Join(b.source.Context, b.dockerfile())); fault != nil {
		return fault
	}
	if info, err := os.Stat(b.file); err != nil || !info.Mode().IsRegular() {
		return wrong("%s is not a file", filepath.Join(b.source.Context, b.dockerfile()))
	}
	return nil
}

func (b *dockerfileBuild) dockerfile() string { return cmp.Or(b.source.File, "Dockerfile") }

func (b *dockerfileBuild) platform() string {
	return "linux/" + cmp.Or(b.order.Architecture, runtime.GOARCH)
}

// describe sums up what goes into the image.
func (b *dockerfileBuild) describe() (digest string, inputs json.RawMessage, err error) {
	lines, err := b.files()
	if err == nil {
		err = b.index.save()
	}
	if err != nil {
		return "", nil, fmt.Errorf("reading the build context %s: %w", b.source.Context, err)
	}
	inputs, err = json.Marshal(dockerfileInputs{
		Kind: "dockerfile", Format: 1, Platform: b.platform(), File: b.dockerfile(), Target: b.source.Target, Args: b.source.Args,
		Context: tree{Files: len(lines), SHA256: hexSum([]byte(strings.Join(lines, "\n")))},
	})
	if err != nil {
		return "", nil, fmt.Errorf("describing %s: %w", b.order.Name, err)
	}
	return hexSum(inputs), inputs, nil
}

// files returns one line for everything in the context but version control's own folders: what a .dockerignore leaves
// out counts as well, which costs a build at most.
func (b *dockerfileBuild) files() ([]string, error) {
	var lines []string
	err := filepath.WalkDir(b.context, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (path == b.skip || slices.Contains([]string{".git", ".hg", ".svn", ".jj"}, entry.Name())) {
			return fs.SkipDir
		}
		line, err := b.line(path, entry)
		if err == nil && line != "" {
			lines = append(lines, line)
		}
		return err
	})
	return lines, err
}

// line says what is at a path; empty for what no build can take, like a socket.
func (b *dockerfileBuild) line(path string, entry fs.DirEntry) (string, error) {
	below, err := filepath.Rel(b.context, path)
	if err != nil {
		return "", err
	}
	info, err := entry.Info()
	if err != nil {
		return "", err
	}
	name := filepath.ToSlash(below)
	switch {
	case entry.IsDir():
		return fmt.Sprintf("%s/ %o", name, info.Mode().Perm()), nil
	case entry.Type() == fs.ModeSymlink:
		target, err := os.Readlink(path)
		return fmt.Sprintf("%s -> %s", name, target), err
	case !entry.Type().IsRegular():
		return "", nil
	}
	known, err := b.index.hash(path)
	return fmt.Sprintf("%s %o %s", name, info.Mode().Perm(), known.SHA256), err
}

// buildctl finds BuildKit's client, and says what to do where there is none, or nobody it could speak with.
func (s *Store) buildctl() (string, *Fault) {
	path, err := exec.LookPath("buildctl")
	if err != nil {
		return "", unfit("its source is dockerfile, which BuildKit builds, and there is no buildctl in PATH: install BuildKit and name its " +
			"buildkitd in BUILDKIT_HOST, or build and push the image elsewhere and give an image source")
	}
	return path, nil
}

// build has BuildKit write the image into a file. Nothing in it tells when it was built.
func (b *dockerfileBuild) build(ctx context.Context, s *Store, buildctl, to string) error {
	args := []string{"build", "--progress=plain", "--frontend=dockerfile.v0",
		"--local=context=" + b.context, "--local=dockerfile=" + filepath.Dir(b.file), "--opt=filename=" + filepath.Base(b.file),
		"--opt=platform=" + b.platform(), "--opt=build-arg:SOURCE_DATE_EPOCH=0",
		"--output=type=docker,rewrite-timestamp=true,dest=" + to}
	if b.source.Target != "" {
		args = append(args, "--opt=target="+b.source.Target)
	}
	for _, name := range slices.Sorted(maps.Keys(b.source.Args)) {
		args = append(args, "--opt=build-arg:"+name+"="+b.source.Args[name])
	}
	log, err := b.order.log()
	if err != nil {
		return err
	}
	defer log.Close()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, buildctl, args...)
	cmd.Dir, cmd.Env = b.context, s.environ
	_, err = finish(ctx, cmd, io.MultiWriter(&said, log))
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return unbuilt(said.String())
	}
	if err != nil {
		return fmt.Errorf("building the image of %s: %w", b.order.Name, err)
	}
	return nil
}

// unserved matches what buildctl says when nobody answers it.
var unserved = regexp.MustCompile(`(?i)failed to (dial|list workers|get (status|info))|connection error|dial unix|context deadline exceeded`)

// unbuilt is the fault for what buildctl said before it failed: its last error says what went wrong.
func unbuilt(said string) *Fault {
	reason := ""
	for line := range strings.Lines(said) {
		if begin, rest, found := strings.Cut(strings.TrimSpace(line), ": "); found && strings.EqualFold(begin, "error") {
			reason = strings.TrimPrefix(rest, "failed to solve: ")
		}
	}
	switch {
	case unserved.MatchString(reason):
		return unfit("no buildkitd answers buildctl: start one, or name its address in BUILDKIT_HOST (%s)", reason)
	case strings.TrimSpace(said) == "":
		return wrong("BuildKit failed and said nothing")
	case reason == "":
		return refusal("building the image", said)
	}
	return &Fault{Reason: reason, Invalid: surroundings.MatchString(reason)}
}
