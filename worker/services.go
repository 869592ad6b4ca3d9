package worker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/groundplan/groundplan/runs"
)

// services is services.json: where the embedded services are while they are up. Only its owner may read it, since the
// token lets in whoever has it. Whether it is stale is told by the lock: with nobody holding that, it is.
type services struct {
	Temporal   string    `json:"temporal"`
	Namespace  string    `json:"namespace"`
	TemporalUI string    `json:"temporalUI,omitempty"`
	Token      string    `json:"token"`
	PID        int       `json:"pid"`
	Started    time.Time `json:"started"`
}

func servicesPath(home runs.Home) string { return filepath.Join(string(home), "services.json") }

func readServices(home runs.Home) (services, error) {
	var s services
	content, err := os.ReadFile(servicesPath(home))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(content, &s); err != nil {
		return s, fmt.Errorf("%s: %w", servicesPath(home), err)
	}
	return s, nil
}

func writeServices(home runs.Home, s services) error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(servicesPath(home), append(content, '\n'))
}

func removeServices(home runs.Home) error {
	if err := os.Remove(servicesPath(home)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeFile puts a file with mode 0600 in place whole or not at all.
func writeFile(path string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone already when all went well
	if _, err := temp.Write(content); err != nil {
		return errors.Join(err, temp.Close())
	}
	if err := temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// homeToken is the home's secret, made at its first use: with it the embedded Temporal lets in this home's sessions and
// nobody else on the machine. It stays the same, so that a session goes on when another one takes over.
func homeToken(home runs.Home) (string, error) {
	path := filepath.Join(string(home), "token")
	for range 2 {
		content, err := os.ReadFile(path)
		if err == nil && len(content) > 0 {
			return string(content), nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("reading the home's token: %w", err)
		}
		if err := makeToken(path); err != nil {
			return "", fmt.Errorf("making the home's token: %w", err)
		}
	}
	return "", fmt.Errorf("%s is empty: remove it", path)
}

// makeToken links a finished file into place, so that of two makers one wins and nobody reads half a token.
func makeToken(path string) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".token-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.WriteString(rand.Text())
	if err := errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err := os.Link(temp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// locator knows where Temporal is at the moment. The owner of the embedded services may change while a session is
// open, and with it the address: it is looked up again for every connection.
type locator struct {
	home     runs.Home
	external string
	token    string

	mu  sync.Mutex
	own string // set while this process runs the services
}

func newLocator(config Config) (*locator, error) {
	l := &locator{home: config.Home, external: config.Temporal}
	if l.external != "" {
		return l, nil
	}
	token, err := homeToken(config.Home)
	l.token = token
	return l, err
}

// address is where to connect to.
func (l *locator) address() (string, error) {
	if l.external != "" {
		return l.external, nil
	}
	l.mu.Lock()
	own := l.own
	l.mu.Unlock()
	if own != "" {
		return own, nil
	}
	up, err := readServices(l.home)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w in %s", ErrNoServices, l.home)
	}
	return up.Temporal, err
}

// ready says whether there is an address to connect to.
func (l *locator) ready() bool {
	_, err := l.address()
	return err == nil
}

// wait returns once there is an address.
func (l *locator) wait(ctx context.Context) error {
	for !l.ready() {
		if err := sleep(ctx, pause/10); err != nil {
			return err
		}
	}
	return nil
}

// set says that this process runs the services at an address; empty: no longer.
func (l *locator) set(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own = address
}

// GetHeaders adds the home's token to every request.
func (l *locator) GetHeaders(context.Context) (map[string]string, error) {
	if l.token == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + l.token}, nil
}
