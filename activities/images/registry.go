package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// client speaks with registries. One that doesn't answer is said to be away while somebody still waits for it.
var client = func() http.RoundTripper {
	t := remote.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 4 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.TLSHandshakeTimeout = 5 * time.Second
	t.ResponseHeaderTimeout = time.Minute // a registry may store a large layer before it says that it has
	return t
}()

func (p *packer) remote() []remote.Option {
	keychain := p.options.Keychain
	if keychain == nil {
		keychain = authn.DefaultKeychain
	}
	return []remote.Option{
		remote.WithContext(p.ctx),
		remote.WithAuthFromKeychain(keychain),
		remote.WithTransport(client),
		remote.WithPlatform(p.platform()),
		remote.WithUserAgent("groundplan"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 3}),
	}
}

// archive pushes an image that lies in a file, as builders write it.
func (p *packer) archive() error {
	image, err := tarball.ImageFromPath(p.artifact.Archive, nil)
	if err != nil {
		return fmt.Errorf("reading the image %s: %w", p.artifact.Archive, err)
	}
	if err := p.understand(image); err != nil {
		return err
	}
	return p.push(image)
}

// existing looks an image up.
func (p *packer) existing() error {
	reference, err := p.reference()
	if err != nil {
		return unfit("%q is not the reference of an image: %v", p.artifact.Image, err)
	}
	found, err := remote.Get(reference, p.remote()...)
	if err != nil {
		return pulling(reference, err)
	}
	if found.MediaType.IsIndex() {
		if err := p.offered(reference, found); err != nil {
			return err
		}
	}
	image, err := found.Image()
	if err != nil {
		return pulling(reference, err)
	}
	if err := p.understand(image); err != nil {
		return err
	}
	p.artifact.Image = reference.Context().Digest(found.Digest.String()).Name()
	p.artifact.Digest = found.Digest.Hex
	return nil
}

// reference is that of an image that exists. Only the registry that was named is spoken to in the clear.
func (p *packer) reference() (name.Reference, error) {
	reference, err := name.ParseReference(p.artifact.Image)
	registry, options := p.registry()
	if host, _, _ := strings.Cut(registry, "/"); err != nil || reference.Context().RegistryStr() != host {
		return reference, err
	}
	return name.ParseReference(p.artifact.Image, options...)
}

// offered makes sure that an image for several platforms is there for that of the nodes.
func (p *packer) offered(reference name.Reference, found *remote.Descriptor) error {
	index, err := found.ImageIndex()
	if err != nil {
		return pulling(reference, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return pulling(reference, err)
	}
	wanted := p.platform()
	var platforms []string
	for _, one := range manifest.Manifests {
		if one.Platform == nil || one.Platform.OS == "unknown" { // an attestation beside the images
			continue
		}
		if one.Platform.Satisfies(wanted) {
			return nil
		}
		platforms = append(platforms, one.Platform.String())
	}
	slices.Sort(platforms)
	return unfit("the image %s is not there for the nodes' %s, only for %s", reference, wanted, strings.Join(slices.Compact(platforms), ", "))
}

// understand reads from an image's configuration what the supervisor is to start in place of its entrypoint.
func (p *packer) understand(image v1.Image) error {
	config, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("reading the configuration of the image of %s: %w", p.artifact.Name, err)
	}
	if wanted := p.platform(); config.OS != wanted.OS || config.Architecture != wanted.Architecture {
		return unfit("its image is for %s/%s, and the nodes are %s", config.OS, config.Architecture, wanted)
	}
	p.artifact.Command = slices.Concat(config.Config.Entrypoint, config.Config.Cmd)
	if len(p.artifact.Command) == 0 {
		return unfit("its image has neither an entrypoint nor a command, so that nothing says what to start: set ENTRYPOINT in what it is built from")
	}
	return nil
}

// missing says whether a registry answered that it doesn't have what was asked for.
func missing(err error) bool {
	var refused *transport.Error
	return errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound
}

// pulling is what a person is told about an image that could not be looked up. That it isn't there is the artifact's
// fault, and so is that nobody may see it.
func pulling(reference name.Reference, err error) error {
	var refused *transport.Error
	if !errors.As(err, &refused) {
		return unreachable(reference.Context().Registry, err)
	}
	switch refused.StatusCode {
	case http.StatusNotFound:
		return unfit("the image %s doesn't exist: check its name and tag", reference)
	case http.StatusUnauthorized, http.StatusForbidden:
		return unfit("the image %s doesn't exist or may not be pulled with the credentials that are here: check its name, or log in "+
			"to %s (docker login, or a config.json in $DOCKER_CONFIG)", reference, reference.Context().RegistryStr())
	}
	return unreachable(reference.Context().Registry, err)
}

// pushing is what a person is told about an image that could not be pushed.
func pushing(reference name.Digest, err error) error {
	var refused *transport.Error
	if !errors.As(err, &refused) {
		return unreachable(reference.Context().Registry, err)
	}
	switch refused.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return away("the registry %s doesn't let the credentials that are here push to %s: log in (docker login, or a config.json in "+
			"$DOCKER_CONFIG) as somebody who may", reference.Context().RegistryStr(), reference.Context().RepositoryStr())
	case http.StatusNotFound:
		return away("the registry %s has no place for %s: create the repository there first, or name another path with --registry",
			reference.Context().RegistryStr(), reference.Context().RepositoryStr())
	}
	return unreachable(reference.Context().Registry, err)
}

// unreachable is what a person is told about a registry that doesn't serve.
func unreachable(registry name.Registry, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var authority x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &authority):
		return away("the registry %s shows a certificate of an authority that this machine doesn't know: add its CA to the system's, "+
			"or to the file that SSL_CERT_FILE names", registry)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return away("the registry %s doesn't speak TLS: if that is meant, say so with --registry http://%s", registry, registry)
	}
	return away("the registry %s can't be used: %v", registry, err)
}
