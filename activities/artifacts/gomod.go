package artifacts

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
)

// modfileOf is the absolute path of what is read as the go.mod of a source's module, which lies in the folder module.
func modfileOf(root, module string, source pipelines.GoSource) (string, *Fault) {
	name := cmp.Or(source.Modfile, "go.mod")
	if !filepath.IsLocal(name) || filepath.Ext(name) != ".mod" {
		return "", wrong("modfile %s must be a file of the module whose name ends in .mod", name)
	}
	file := filepath.Join(module, name)
	if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
		_, fault := inside(root, filepath.Join(source.Module, name))
		return file, fault
	}
	others, _ := filepath.Glob(filepath.Join(module, "*.mod")) // a pattern that can't be wrong
	if len(others) == 0 {
		return "", wrong("there is no %s in %s", name, source.Module)
	}
	for i, other := range others {
		others[i] = filepath.Base(other)
	}
	return "", wrong("there is no %s in %s: it has %s, which `modfile` can name", name, source.Module, strings.Join(others, ", "))
}

// checksumsOf is where the checksums for a go.mod of any name lie.
func checksumsOf(modfile string) string {
	return strings.TrimSuffix(modfile, ".mod") + ".sum"
}

// replacement is a replace of a go.mod, as it is written there. Without a NewVersion, New is a folder.
type replacement struct {
	Old        string `json:"old"`
	OldVersion string `json:"oldVersion,omitempty"`
	New        string `json:"new"`
	NewVersion string `json:"newVersion,omitempty"`
}

// left is the left side of a replace.
func (r replacement) left() string {
	if r.OldVersion == "" {
		return r.Old
	}
	return r.Old + "@" + r.OldVersion
}

// replaced lists the replaces of the main module.
func (b *goBuild) replaced(ctx context.Context, modSum string) ([]replacement, error) {
	if known, found := b.index.Replaced[modSum]; found {
		return known, nil
	}
	out, err := b.tool.ask(ctx, "reading go.mod", "mod", "edit", "-json", b.modfile)
	if err != nil {
		return nil, err
	}
	var mod struct {
		Replace []struct {
			Old, New struct{ Path, Version string }
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		return nil, fmt.Errorf("understanding `go mod edit -json`: %w", err)
	}
	list := []replacement{}
	for _, r := range mod.Replace {
		list = append(list, replacement{Old: r.Old.Path, OldVersion: r.Old.Version, New: r.New.Path, NewVersion: r.New.Version})
	}
	remember(b.index.Replaced, modSum, list)
	b.index.changed = true
	return list, nil
}

// fixedVersion matches a version that always means the same: a release, a pre-release, a pseudo-version.
var fixedVersion = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+incompatible)?$`)

// pin makes the values of a replace or require stand for one content each: a branch or `latest` becomes the version
// that it means today. Folders stay as they are; their content counts by itself.
func (b *goBuild) pin(ctx context.Context, values map[string]string) (map[string]string, error) {
	pinned := make(map[string]string, len(values))
	for _, path := range slices.Sorted(maps.Keys(values)) {
		value := values[path]
		if isFolder(value) {
			pinned[path] = value
			continue
		}
		module, version, found := strings.Cut(value, "@")
		if !found {
			module, version = path, value
		}
		if !fixedVersion.MatchString(version) {
			var err error
			if version, err = b.resolve(ctx, module, version); err != nil {
				return nil, err
			}
		}
		pinned[path] = module + "@" + version
	}
	return pinned, nil
}

// resolve asks which version a branch, a commit or `latest` means.
func (b *goBuild) resolve(ctx context.Context, module, query string) (string, error) {
	b.order.note("looking up " + module + "@" + query)
	outside := b.tool
	outside.dir = os.TempDir()
	out, err := outside.ask(ctx, "looking up "+module+"@"+query, "list", "-m", "-json", module+"@"+query)
	if err != nil {
		return "", err
	}
	var found struct{ Version string }
	if err := json.Unmarshal(out, &found); err != nil || found.Version == "" {
		return "", fmt.Errorf("understanding which version %s@%s is: %w", module, query, err)
	}
	return found.Version, nil
}

// overriding writes a go.mod with the pipeline's replace and require, and the go.sum beside it, into folder, and returns
// the flags with which `go build` reads them. The user's own files are only read.
func (b *goBuild) overriding(ctx context.Context, folder string, in goInputs) ([]string, error) {
	modfile := filepath.Join(folder, "go.mod")
	for from, to := range map[string]string{b.modfile: modfile, checksumsOf(b.modfile): checksumsOf(modfile)} {
		data, err := os.ReadFile(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to, data, 0o644)
		}
		if err != nil {
			return nil, fmt.Errorf("copying %s: %w", filepath.Base(from), err)
		}
	}
	flags := []string{"-mod=readonly", "-modfile=" + modfile}
	if len(in.Replace)+len(in.Require) > 0 {
		flags[0] = "-mod=mod" // what the new versions need is added
		if err := b.edit(ctx, modfile, in); err != nil {
			return nil, err
		}
	}
	overlay, err := b.overlay(folder, modfile)
	return append(flags, overlay...), err
}

// overlay makes the go command see a go.mod where a module has none but the one that the pipeline names: without it the
// folder would be no module.
func (b *goBuild) overlay(folder, modfile string) ([]string, error) {
	own := filepath.Join(b.module, "go.mod")
	if found, err := exists(own); err != nil || found {
		return nil, err
	}
	data, err := json.Marshal(map[string]any{"Replace": map[string]string{own: modfile}})
	if err != nil {
		return nil, fmt.Errorf("describing the go.mod that isn't there: %w", err)
	}
	file := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return nil, fmt.Errorf("standing in for a go.mod: %w", err)
	}
	return []string{"-overlay=" + file}, nil
}

// edit lays the pipeline's replace and require over a go.mod.
func (b *goBuild) edit(ctx context.Context, modfile string, in goInputs) error {
	args, err := b.dropping(ctx)
	if err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(in.Require)) {
		args = append(args, "-require="+in.Require[path])
	}
	for _, path := range slices.Sorted(maps.Keys(in.Replace)) {
		target := in.Replace[path]
		if dir := b.local[path]; dir != "" {
			// Relative to the module, so that the program doesn't carry where the repository lies.
			relative, err := filepath.Rel(b.module, dir)
			if err != nil {
				return fmt.Errorf("replacing %s: %w", path, err)
			}
			target = "./" + filepath.ToSlash(relative)
		}
		args = append(args, "-replace="+path+"="+target)
	}
	_, err = b.tool.ask(ctx, "laying the pipeline's versions over go.mod", append(args, modfile)...)
	return err
}

// dropping begins an edit that takes out the user's own replaces of the modules that the pipeline replaces: one that
// names a version would win over the pipeline's, which names none.
func (b *goBuild) dropping(ctx context.Context) ([]string, error) {
	mod, err := b.index.hash(b.modfile)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Base(b.modfile), err)
	}
	replaced, err := b.replaced(ctx, mod.SHA256)
	args := []string{"mod", "edit"}
	for _, r := range replaced {
		if _, overridden := b.source.Replace[r.Old]; overridden {
			args = append(args, "-dropreplace="+r.left())
		}
	}
	return args, err
}
