package images

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/activities/artifacts"
	"github.com/groundplan/groundplan/activities/stage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a registry on loopback, which counts what it is asked.
type server struct {
	host string
	mu   sync.Mutex
	did  []string
}

// serve starts a registry; guard, when set, goes before it.
func serve(t *testing.T, guard func(http.Handler) http.Handler) *server {
	s := &server{}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if guard != nil {
		handler = guard(handler)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.did = append(s.did, r.Method)
		s.mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		web.Close()
		client.(*http.Transport).CloseIdleConnections()
	})
	s.host = strings.TrimPrefix(web.URL, "http://")
	return s
}

// asked counts requests with a method, and forgets them.
func (s *server) asked(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, m := range s.did {
		if m == method {
			n++
		}
	}
	s.did = nil
	return n
}

func program(t *testing.T, size int) stage.Artifact {
	path := filepath.Join(t.TempDir(), "program")
	noise := make([]byte, size)
	rand.Read(noise)
	if err := os.WriteFile(path, append(linux(t, "amd64", ""), noise...), 0o755); err != nil {
		t.Fatal(err)
	}
	return stage.Artifact{Name: "peer", Digest: "d1", Path: path, Args: []string{"--light", "a b"}}
}

func TestProgramBecomesAnImage(t *testing.T) {
	s := serve(t, nil)
	given := program(t, 3<<20)
	options := Options{Registry: s.host + "/team/plans", Architecture: "amd64"}
	packed, why, err := Pack(t.Context(), given, options)
	if err != nil || why != "" {
		t.Fatal(why, err)
	}
	if !strings.HasPrefix(packed.Image, s.host+"/team/plans/peer@sha256:") {
		t.Errorf("image %s", packed.Image)
	}
	if want := []string{"/plan/peer", "--light", "a b"}; !slices.Equal(packed.Command, want) {
		t.Errorf("command %q, want %q", packed.Command, want)
	}
	image := pull(t, packed.Image)
	if err := validate.Image(image); err != nil {
		t.Error(err)
	}
	config, _ := image.ConfigFile()
	if config.Config.User != "65532:65532" || config.OS != "linux" || config.Architecture != "amd64" {
		t.Errorf("config %+v", config)
	}
	content, err := os.ReadFile(given.Path)
	if err != nil {
		t.Fatal(err)
	}
	files := contents(t, image)
	if !bytes.Equal(files["plan/peer"].content, content) || files["plan/peer"].mode != 0o755 {
		t.Error("the program in the image is not the one that was given")
	}
	if files["tmp"].mode != fs.ModeDir|fs.ModeSticky|0o777 {
		t.Errorf("tmp has mode %v", files["tmp"].mode)
	}

	if s.asked("PUT") == 0 {
		t.Error("nothing was pushed")
	}
	again, why, err := Pack(t.Context(), packed, options)
	if err != nil || why != "" || again.Image != packed.Image || !slices.Equal(again.Command, packed.Command) {
		t.Errorf("packed again: %+v %s %v", again, why, err)
	}
	if n := s.asked("PUT") + s.asked("POST") + s.asked("PATCH"); n != 0 {
		t.Errorf("an image that was there was pushed again (%d requests)", n)
	}
}

func TestDigestIsReproducible(t *testing.T) {
	var digests []string
	content := append(linux(t, "amd64", ""), "the same"...)
	for range 2 {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, content, 0o700); err != nil {
			t.Fatal(err)
		}
		packed, why, err := Pack(t.Context(), stage.Artifact{Name: "peer", Path: path}, Options{Registry: serve(t, nil).host, Architecture: "amd64"})
		if err != nil || why != "" {
			t.Fatal(why, err)
		}
		_, digest, _ := strings.Cut(packed.Image, "@")
		digests = append(digests, digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("the same program became %s and %s", digests[0], digests[1])
	}
}

// testImage is an image with a configuration, for one platform.
func testImage(t *testing.T, architecture string, config v1.Config) v1.Image {
	image, err := Build(v1.Platform{OS: "linux", Architecture: architecture}, []File{{Path: "bin/x", Mode: 0o755, Content: architecture}}, config)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func put(t *testing.T, reference string, write func(name.Reference) error) name.Reference {
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(ref); err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestExistingImages(t *testing.T) {
	s := serve(t, nil)
	both := v1.Config{Entrypoint: []string{"/bin/x", "serve"}, Cmd: []string{"--now"}, Env: []string{"A=b"}, WorkingDir: "/srv"}
	image := testImage(t, "amd64", both)
	push := func(image v1.Image) func(name.Reference) error {
		return func(r name.Reference) error { return remote.Write(r, image) }
	}
	put(t, s.host+"/some/image:v1", push(image))
	put(t, s.host+"/some/arm:v1", push(testImage(t, "arm64", both)))
	put(t, s.host+"/some/silent:v1", push(testImage(t, "amd64", v1.Config{})))
	put(t, s.host+"/some/command:v1", push(testImage(t, "amd64", v1.Config{Cmd: []string{"x"}})))
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: testImage(t, "arm64", both), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	put(t, s.host+"/some/index:v1", func(r name.Reference) error { return remote.WriteIndex(r, index) })
	digest, _ := image.Digest()
	indexDigest, _ := index.Digest()

	for _, test := range []struct {
		reference, architecture string
		image                   string
		command                 []string
		why                     string
	}{
		{"some/image:v1", "amd64", "some/image@" + digest.String(), []string{"/bin/x", "serve", "--now"}, ""},
		{"some/image@" + digest.String(), "amd64", "some/image@" + digest.String(), []string{"/bin/x", "serve", "--now"}, ""},
		{"some/index:v1", "amd64", "some/index@" + indexDigest.String(), []string{"/bin/x", "serve", "--now"}, ""},
		{"some/command:v1", "amd64", "", []string{"x"}, ""},
		{"some/index:v1", "riscv64", "", nil, "not there for the nodes' linux/riscv64, only for linux/amd64, linux/arm64"},
		{"some/arm:v1", "amd64", "", nil, "its image is for linux/arm64, and the nodes are linux/amd64"},
		{"some/silent:v1", "amd64", "", nil, "neither an entrypoint nor a command"},
		{"some/image:v2", "amd64", "", nil, "some/image:v2 doesn't exist"},
		{"UPPER/case", "amd64", "", nil, "is not the reference of an image"},
	} {
		t.Run(test.reference+" "+test.architecture, func(t *testing.T) {
			packed, why, err := Pack(t.Context(), stage.Artifact{Name: "x", Image: s.host + "/" + test.reference}, Options{Architecture: test.architecture})
			if err != nil {
				t.Fatal(err)
			}
			if test.why != "" {
				if !strings.Contains(why, test.why) {
					t.Errorf("why %q, want %q", why, test.why)
				}
				return
			}
			if why != "" || !slices.Equal(packed.Command, test.command) || test.image != "" && packed.Image != s.host+"/"+test.image {
				t.Errorf("%+v %s", packed, why)
			}
			if !strings.HasSuffix(packed.Image, packed.Digest) {
				t.Errorf("digest %s of %s", packed.Digest, packed.Image)
			}
		})
	}
}

func TestArchiveIsPushed(t *testing.T) {
	s := serve(t, nil)
	image := testImage(t, "amd64", v1.Config{Entrypoint: []string{"/bin/x"}})
	path := filepath.Join(t.TempDir(), "image.tar")
	tag, _ := name.NewTag("built/here:latest")
	if err := tarball.WriteToFile(path, tag, image); err != nil {
		t.Fatal(err)
	}
	packed, why, err := Pack(t.Context(), stage.Artifact{Name: "subject", Archive: path}, Options{Registry: s.host, Architecture: "amd64"})
	if err != nil || why != "" {
		t.Fatal(why, err)
	}
	if !slices.Equal(packed.Command, []string{"/bin/x"}) || string(contents(t, pull(t, packed.Image))["bin/x"].content) != "amd64" {
		t.Errorf("%+v", packed)
	}
}

// guarded lets only one user in.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

type keychain struct{ user, password string }

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: k.user, Password: k.password}, nil
}

func TestCredentials(t *testing.T) {
	s := serve(t, guarded)
	mine, wrong := keychain{"me", "secret"}, keychain{"me", "guess"}
	given := program(t, 10)
	packed, why, err := Pack(t.Context(), given, Options{Registry: s.host, Architecture: "amd64", Keychain: mine})
	if err != nil || why != "" {
		t.Fatal(why, err)
	}
	_, why, err = Pack(t.Context(), given, Options{Registry: s.host, Architecture: "amd64", Keychain: wrong})
	faultOf(t, err, "doesn't let the credentials that are here push to peer")
	if why != "" {
		t.Errorf("the artifact is said to be at fault: %s", why)
	}
	_, why, err = Pack(t.Context(), stage.Artifact{Name: "x", Image: packed.Image}, Options{Keychain: wrong, Architecture: "amd64"})
	if err != nil || !strings.Contains(why, "may not be pulled with the credentials that are here") {
		t.Errorf("why %q, error %v", why, err)
	}
}

// faultOf makes sure that what surrounds the artifact is said to be at fault, in these words.
func faultOf(t *testing.T, err error, words string) {
	t.Helper()
	var fault *artifacts.Fault
	if !errors.As(err, &fault) || !fault.Invalid || !strings.Contains(fault.Reason, words) {
		t.Errorf("error %v, want an invalid fault with %q", err, words)
	}
}

func TestRegistryIsAway(t *testing.T) {
	web := httptest.NewServer(nil)
	host := strings.TrimPrefix(web.URL, "http://")
	web.Close()
	_, _, err := Pack(t.Context(), program(t, 10), Options{Registry: host, Architecture: "amd64"})
	faultOf(t, err, "the registry "+host+" can't be used")
	_, why, err := Pack(t.Context(), stage.Artifact{Name: "x", Image: host + "/some/x:v1"}, Options{})
	faultOf(t, err, "the registry "+host+" can't be used")
	if why != "" {
		t.Errorf("the artifact is said to be at fault: %s", why)
	}
	_, _, err = Pack(t.Context(), program(t, 10), Options{Architecture: "amd64"})
	faultOf(t, err, "no registry is named")
	_, _, err = Pack(t.Context(), program(t, 10), Options{Registry: "https://x", Architecture: "amd64"})
	faultOf(t, err, "it is named HOST[:PORT][/PATH]")
}

func TestStrangersCertificate(t *testing.T) {
	web := httptest.NewTLSServer(registry.New())
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer web.Close()
	defer client.(*http.Transport).CloseIdleConnections()
	_, _, err := Pack(t.Context(), program(t, 10), Options{Registry: strings.TrimPrefix(web.URL, "https://"), Architecture: "amd64"})
	faultOf(t, err, "a certificate of an authority that this machine doesn't know")
}

// TestUnsteadyRegistry has a request of each kind fail.
func TestUnsteadyRegistry(t *testing.T) {
	var n atomic.Int64
	s := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if slices.Contains([]int64{2, 5, 11, 17}, n.Add(1)) {
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	packed, why, err := Pack(t.Context(), program(t, 1<<20), Options{Registry: s.host, Architecture: "amd64"})
	if err != nil || why != "" {
		t.Fatal(why, err)
	}
	if packed.Image == "" {
		t.Error("nothing was packed")
	}
}

func pull(t *testing.T, reference string) v1.Image {
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(ref, remote.WithTransport(client))
	if err != nil {
		t.Fatal(err)
	}
	return image
}

type entry struct {
	mode    fs.FileMode
	content []byte
}

// contents reads an image's files.
func contents(t *testing.T, image v1.Image) map[string]entry {
	from := mutate.Extract(image)
	defer from.Close()
	files := map[string]entry{}
	for archive := tar.NewReader(from); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Uname != "" || header.ModTime.Unix() != 0 {
			t.Errorf("%s belongs to %d %q, changed %v", header.Name, header.Uid, header.Uname, header.ModTime)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(header.Name, "/")] = entry{header.FileInfo().Mode(), content}
	}
}
