// Package notify calls webhooks as Standard Webhooks describes it: signed, with an id that stays the same over all tries.
package notify

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"gopkg.in/yaml.v3"

	"github.com/groundplan/groundplan/runs"
)

// Secrets is where secrets are: the variables of the process, and before them nothing; behind them a file that only its
// owner may read.
type Secrets struct {
	Home   runs.Home
	Getenv func(name string) (string, bool)
}

// SecretVariable is the variable that a secret is looked up in.
func SecretVariable(name string) string { return "GROUNDPLAN_SECRET_" + name }

// File is the file that holds the secrets that no variable does: a mapping of names to text.
func (s Secrets) File() string { return filepath.Join(string(s.Home), "secrets.yaml") }

// Read reads the file and returns the look-up. It is read each time, so that a secret can be mended while a worker runs.
// No error and no look-up says what a secret is.
func (s Secrets) Read() (func(name string) (string, bool), error) {
	file, err := s.readFile()
	if err != nil {
		return nil, err
	}
	return func(name string) (string, bool) {
		if s.Getenv != nil {
			if v, ok := s.Getenv(SecretVariable(name)); ok && v != "" {
				return v, true
			}
		}
		v, ok := file[name]
		return v, ok && v != ""
	}, nil
}

func (s Secrets) readFile() (map[string]string, error) {
	file, err := os.Open(s.File())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the secrets: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the secrets: %w", err)
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm() != 0o600 {
		return nil, fmt.Errorf("%s has the mode %v: nobody but its owner may read secrets; `chmod 600 %s`", s.File(), mode, s.File())
	}
	values := map[string]string{}
	if err := yaml.NewDecoder(file).Decode(&values); err != nil && !errors.Is(err, io.EOF) { // empty
		// The parser's words could quote a secret.
		return nil, fmt.Errorf("%s is not a list of lines `NAME: text`", s.File())
	}
	return values, nil
}
