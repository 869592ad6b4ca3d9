// Package registry is the registry of a development cluster's images: go-containerregistry's, which keeps layers on disk
// and manifests in memory, with a journal of the manifests, so that it has everything again after a restart.
package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
)

// maxManifest is the largest manifest that is taken, in bytes: that of a registry elsewhere.
const maxManifest = 4 << 20

var manifestPath = regexp.MustCompile(`^/v2/.+/manifests/[^/]+$`)

// entry is one line of the journal: a change of manifests, as it was asked for.
type entry struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Type   string `json:"type,omitzero"`
	Body   []byte `json:"body,omitzero"`
}

// Registry serves images over HTTP.
type Registry struct {
	images  http.Handler
	mutex   sync.Mutex
	journal *os.File
}

// Open opens the registry that keeps its images in a folder, which is made.
func Open(folder string) (*Registry, error) {
	layers := filepath.Join(folder, "layers")
	if err := os.MkdirAll(layers, 0o700); err != nil {
		return nil, fmt.Errorf("opening the registry: %w", err)
	}
	r := &Registry{images: registry.New(
		registry.WithBlobHandler(registry.NewDiskBlobHandler(layers)),
		registry.Logger(log.New(io.Discard, "", 0)),
	)}
	path := filepath.Join(folder, "manifests.jsonl")
	if err := r.replay(path); err != nil {
		return nil, fmt.Errorf("reading the registry's journal %s: %w", path, err)
	}
	var err error
	if r.journal, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, fmt.Errorf("opening the registry: %w", err)
	}
	return r, nil
}

// Close closes the journal; the registry takes nothing more.
func (r *Registry) Close() error { return r.journal.Close() }

// ServeHTTP serves the registry's API.
func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if !manifestPath.MatchString(request.URL.Path) || request.Method != http.MethodPut && request.Method != http.MethodDelete {
		r.images.ServeHTTP(w, request)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxManifest))
	if err != nil {
		http.Error(w, fmt.Sprintf("reading the manifest: %v", err), http.StatusBadRequest)
		return
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	if err := r.change(w, request, body); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// change carries a change out, one after the other, and answers once it is in the journal.
func (r *Registry) change(w http.ResponseWriter, request *http.Request, body []byte) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	answer := httptest.NewRecorder()
	r.images.ServeHTTP(answer, request)
	if answer.Code < 300 {
		line, err := json.Marshal(entry{Method: request.Method, Path: request.URL.Path, Type: request.Header.Get("Content-Type"), Body: body})
		if err != nil {
			return err
		}
		if _, err := r.journal.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("keeping a manifest: %w", err)
		}
	}
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, err := w.Write(answer.Body.Bytes())
	return err
}

// replay carries out again what the journal holds. A last line that was cut off was never answered: it is cut away, so
// that what follows begins on a line of its own.
func (r *Registry) replay(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	if whole < len(text) {
		if err := os.Truncate(path, int64(whole)); err != nil {
			return err
		}
	}
	for line := range bytes.Lines(text[:whole]) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		request, err := http.NewRequest(e.Method, e.Path, bytes.NewReader(e.Body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", e.Type)
		answer := httptest.NewRecorder()
		r.images.ServeHTTP(answer, request)
		if answer.Code >= 300 {
			return fmt.Errorf("%s %s is refused: %s", e.Method, e.Path, answer.Body)
		}
	}
	return nil
}
