package registry

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// serve serves what a folder keeps, until the test ends or it is stopped.
func serve(t *testing.T, folder string) (host string, stop func()) {
	r, err := Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	stop = func() {
		server.Close()
		_ = r.Close()
	}
	t.Cleanup(stop)
	return strings.TrimPrefix(server.URL, "http://"), stop
}

func image(t *testing.T) v1.Image {
	i, err := random.Image(1<<10, 2)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func pull(t *testing.T, reference string) (v1.Hash, error) {
	parsed, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(parsed)
	if err != nil {
		return v1.Hash{}, err
	}
	layers, err := got.Layers()
	if err != nil {
		return v1.Hash{}, err
	}
	for _, layer := range layers {
		content, err := layer.Compressed()
		if err != nil {
			return v1.Hash{}, err
		}
		if _, err := io.Copy(io.Discard, content); err != nil { // which holds it against its digest
			return v1.Hash{}, err
		}
	}
	return got.Digest()
}

// TestRestart sees that what was pushed is there after a restart: the newest under a name, and each by its digest.
func TestRestart(t *testing.T) {
	folder := t.TempDir()
	host, stop := serve(t, folder)
	older, newer := image(t), image(t)
	first, err := Push(t.Context(), older, host+"/a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Push(t.Context(), newer, host+"/a/b:1"); err != nil {
		t.Fatal(err)
	}
	stop()
	again, _ := serve(t, folder)
	want, err := newer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pull(t, again+"/a/b:1"); err != nil || got != want {
		t.Errorf("the name leads to %v, %v; not to %v", got, err, want)
	}
	want, err = older.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pull(t, strings.Replace(first, host, again, 1)); err != nil || got != want {
		t.Errorf("the digest leads to %v, %v; not to %v", got, err, want)
	}
}

func TestIndexAfterRestart(t *testing.T) {
	folder := t.TempDir()
	host, stop := serve(t, folder)
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image(t)})
	reference, err := name.ParseReference(host + "/many:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(reference, index); err != nil {
		t.Fatal(err)
	}
	stop()
	again, _ := serve(t, folder)
	reference, err = name.ParseReference(again + "/many:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Index(reference); err != nil {
		t.Error(err)
	}
}

func TestDelete(t *testing.T) {
	folder := t.TempDir()
	host, stop := serve(t, folder)
	if _, err := Push(t.Context(), image(t), host+"/gone:1"); err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+host+"/v2/gone/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil || answer.StatusCode != http.StatusAccepted {
		t.Fatal(answer, err)
	}
	answer.Body.Close()
	stop()
	again, _ := serve(t, folder)
	if got, err := pull(t, again+"/gone:1"); err == nil {
		t.Errorf("it is there again: %v", got)
	}
}

// TestCutOff sees that a line that a crash cut off costs nothing but itself, and spoils nothing that comes after.
func TestCutOff(t *testing.T) {
	folder := t.TempDir()
	host, stop := serve(t, folder)
	if _, err := Push(t.Context(), image(t), host+"/kept:1"); err != nil {
		t.Fatal(err)
	}
	stop()
	journal := filepath.Join(folder, "manifests.jsonl")
	text, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(journal, append(text, `{"method":"PUT","path":"/v2/ha`...), 0o600); err != nil {
		t.Fatal(err)
	}
	host, stop = serve(t, folder)
	if _, err := Push(t.Context(), image(t), host+"/later:1"); err != nil {
		t.Fatal(err)
	}
	stop()
	host, _ = serve(t, folder)
	for _, there := range []string{"kept", "later"} {
		if _, err := pull(t, host+"/"+there+":1"); err != nil {
			t.Errorf("%s: %v", there, err)
		}
	}
}

func TestJournalIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":    "nonsense\n",
		"no request": `{"method":"?? ?","path":"/v2/x/manifests/1"}` + "\n",
		"no image":   `{"method":"DELETE","path":"/v2/x/manifests/1"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			if err := os.WriteFile(filepath.Join(folder, "manifests.jsonl"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(folder); err == nil || !strings.Contains(err.Error(), "manifests.jsonl") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestTooLarge(t *testing.T) {
	host, _ := serve(t, t.TempDir())
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+host+"/v2/x/manifests/1", bytes.NewReader(make([]byte, maxManifest+1)))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("got %s", answer.Status)
	}
}

func TestProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("#!"), 0o700); err != nil {
		t.Fatal(err)
	}
	i, err := Program(file, "A=b")
	if err != nil {
		t.Fatal(err)
	}
	config, err := i.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || len(config.Config.Entrypoint) != 1 || config.Config.Entrypoint[0] != "/program" || config.Config.Env[0] != "A=b" {
		t.Errorf("got %+v", config)
	}
	entries := tar.NewReader(mutate.Extract(i))
	header, err := entries.Next()
	if err != nil || header.Name != "program" || header.Mode != 0o755 {
		t.Errorf("it holds %+v, %v", header, err)
	}
	if content, err := io.ReadAll(entries); err != nil || string(content) != "#!" {
		t.Errorf("the program is %q, %v", content, err)
	}
	again, err := Program(file, "A=b")
	if err != nil {
		t.Fatal(err)
	}
	a, _ := i.Digest()
	if b, _ := again.Digest(); a != b {
		t.Errorf("the same program gives %v and %v", a, b)
	}
	if _, err := Program(file + "-missing"); err == nil {
		t.Error("no program makes an image")
	}
}

func TestLoad(t *testing.T) {
	want := image(t)
	archive := filepath.Join(t.TempDir(), "image.tar")
	tag, err := name.NewTag("x/y:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(archive, tag, want); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(archive)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := serve(t, t.TempDir())
	pushed, err := Push(t.Context(), loaded, host+"/loaded:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pull(t, pushed); err != nil {
		t.Error(err)
	}
	if _, err := Load(archive + "-missing"); err == nil {
		t.Error("no archive makes an image")
	}
}
