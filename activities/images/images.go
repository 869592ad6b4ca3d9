// Package images makes artifacts ready for a cluster: what nodes pull is an image in a registry, pinned by its digest.
// No daemon takes part. A program becomes an image that holds it and nothing else that runs; an archive of an image
// goes to the registry as it is; an image that exists is looked up there, so that what a run used is known exactly, and
// so is the command that the supervisor starts in its place.
package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/groundplan/groundplan/activities/artifacts"
	"github.com/groundplan/groundplan/activities/stage"
)

// Options say where images go.
type Options struct {
	// Registry is HOST[:PORT][/PATH], below which every artifact has a repository of its own name. Images that exist are
	// taken from where their reference says. http:// before it lets it be spoken to in the clear; one at a loopback or
	// private address is asked in the clear anyway when it doesn't speak TLS.
	Registry string
	// Keychain has the credentials; nil: those that `docker login` and its like have left for this user.
	Keychain authn.Keychain
	// Architecture is that of the nodes, as Go names it; empty: this machine's.
	Architecture string
}

// Pack makes an artifact ready to be placed on a cluster: the result has Image, pinned by digest, and Command. The
// string is why it can't be, where the artifact is at fault. An *artifacts.Fault as the error says that the registry is
// away or refuses what it is asked; asking again later may help.
func Pack(ctx context.Context, artifact stage.Artifact, o Options) (stage.Artifact, string, error) {
	p := packer{ctx: ctx, artifact: artifact, options: o}
	var err error
	switch {
	case artifact.Archive != "":
		err = p.archive()
	case artifact.Path != "":
		err = p.program()
	case artifact.Image != "":
		err = p.existing()
	default:
		err = unfit("it is neither a program nor an image")
	}
	var fault *misfit
	if errors.As(err, &fault) {
		return artifact, fault.why, nil
	}
	if ctx.Err() != nil {
		return artifact, "", context.Cause(ctx)
	}
	return p.artifact, "", err
}

// misfit is what is wrong with an artifact.
type misfit struct{ why string }

func (m *misfit) Error() string { return m.why }

func unfit(format string, args ...any) error { return &misfit{fmt.Sprintf(format, args...)} }

// away is the fault of what surrounds the artifact.
func away(format string, args ...any) error {
	return &artifacts.Fault{Reason: fmt.Sprintf(format, args...), Invalid: true}
}

// packer packs one artifact.
type packer struct {
	ctx      context.Context
	artifact stage.Artifact
	options  Options
}

// platform is what the nodes run.
func (p *packer) platform() v1.Platform {
	return v1.Platform{OS: "linux", Architecture: cmp.Or(p.options.Architecture, runtime.GOARCH)}
}

// program makes an image of an executable.
func (p *packer) program() error {
	platform := p.platform()
	if err := Runnable(p.artifact.Path, platform.Architecture); err != nil {
		return err
	}
	inside := "plan/" + p.artifact.Name
	image, err := Build(platform, append(Base(), File{Path: inside, Mode: 0o755, From: p.artifact.Path}), v1.Config{
		User:       Nobody,
		Entrypoint: []string{"/" + inside},
		WorkingDir: "/",
		Env:        []string{"PATH=/plan"},
	})
	if err != nil {
		return fmt.Errorf("making an image of %s: %w", p.artifact.Path, err)
	}
	p.artifact.Command = append([]string{"/" + inside}, p.artifact.Args...)
	return p.push(image)
}

// push brings an image to the registry, unless it is there.
func (p *packer) push(image v1.Image) error {
	repository, err := p.repository()
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return fmt.Errorf("making an image of %s: %w", p.artifact.Name, err)
	}
	pinned := repository.Digest(digest.String())
	options := p.remote()
	if _, err := remote.Head(pinned, options...); err != nil {
		if !missing(err) {
			return pushing(pinned, err)
		}
		// Registries remove what no tag names. The tag says the same as the digest, so that it never moves.
		if err := remote.Write(repository.Tag(digest.Hex[:32]), image, options...); err != nil {
			return pushing(pinned, err)
		}
	}
	p.artifact.Image = pinned.Name()
	return nil
}

// repository is where the artifact's images are.
func (p *packer) repository() (name.Repository, error) {
	if p.options.Registry == "" {
		return name.Repository{}, away("no registry is named to push it to: name one with --registry HOST[:PORT][/PATH] " +
			"or GROUNDPLAN_REGISTRY")
	}
	registry, options := p.registry()
	if strings.Contains(registry, "://") {
		return name.Repository{}, away("the registry %q is an address of the web: it is named HOST[:PORT][/PATH]", p.options.Registry)
	}
	repository, err := name.NewRepository(registry+"/"+p.artifact.Name, options...)
	if err != nil {
		return name.Repository{}, away("the registry %q is not HOST[:PORT][/PATH] in small letters: %v", p.options.Registry, err)
	}
	return repository, nil
}

// registry is the one that was named, and how it is to be spoken to.
func (p *packer) registry() (string, []name.Option) {
	if plain, found := strings.CutPrefix(p.options.Registry, "http://"); found {
		return strings.TrimSuffix(plain, "/"), []name.Option{name.Insecure}
	}
	return strings.TrimSuffix(p.options.Registry, "/"), nil
}
