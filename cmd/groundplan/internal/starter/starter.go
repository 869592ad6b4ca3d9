// Package starter writes the files that a new plan begins with.
package starter

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
)

//go:embed files
var files embed.FS

// Facts fill the files in.
type Facts struct {
	// Name is the pipeline's, [a-z0-9-]{1,63}.
	Name string
	// Go is the language version for go.mod, such as 1.26.
	Go string
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Name makes a pipeline's name of a folder's.
func Name(folder string) string {
	lower := strings.ToLower(filepath.Base(folder))
	name := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(lower, "-"), "-")
	name = name[:min(len(name), 63)]
	if name == "" {
		return "plan"
	}
	return strings.TrimRight(name, "-")
}

// Write puts the files into dir, which is made when it isn't there. Where one of them exists nothing is written. It
// returns the paths that it wrote.
func Write(dir string, f Facts) ([]string, error) {
	if !validName.MatchString(f.Name) {
		return nil, fmt.Errorf("%q can't name a pipeline: use 1 to 63 of the characters a-z 0-9 -", f.Name)
	}
	made, err := render(f)
	if err != nil {
		return nil, err
	}
	for _, file := range made {
		target := filepath.Join(dir, file.name)
		if _, err := os.Lstat(target); err == nil {
			return nil, fmt.Errorf("%s is there already: name another folder", target)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var paths []string
	for _, file := range made {
		target := filepath.Join(dir, file.name)
		if err := create(target, file.content); err != nil {
			return paths, err
		}
		paths = append(paths, target)
	}
	return paths, nil
}

type file struct {
	name    string
	content []byte
}

// render fills every file in; their names in the program end in .tmpl, since go.mod and main.go mean something there.
func render(f Facts) ([]file, error) {
	var out []file
	err := fs.WalkDir(files, "files", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		t, err := template.ParseFS(files, name)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, f); err != nil {
			return err
		}
		out = append(out, file{strings.TrimSuffix(path.Base(name), ".tmpl"), b.Bytes()})
		return nil
	})
	return out, err
}

// create never replaces a file that has come meanwhile.
func create(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}
