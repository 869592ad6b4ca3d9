package testground

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/pipelines/testground/internal/toml"
)

// The builders of Testground.
const (
	execGo        = "exec:go"
	dockerGo      = "docker:go"
	dockerGeneric = "docker:generic"
	dockerNode    = "docker:node"
)

var builders = []string{execGo, dockerGo, dockerGeneric, dockerNode}

// source is what an artifact is built from.
type source struct {
	// kind is go, dockerfile or npm.
	kind string
	// module is the folder of a go source's module inside the plan, program that of its package inside the module.
	module, program string
	fields          []field
}

// key is the same for sources that are the same.
func (s source) key() string { return s.kind + inline(s.fields) }

// setting is one key of a build_config.
type setting struct {
	key   string
	value *toml.Value
	from  *section
}

// note says what became of a setting.
func (s setting) note(state State, format string, args ...any) {
	s.from.row(s.key, state, format, args...)
}

// settingsOf lays build configurations over each other, the nearest first: whole keys replace whole keys.
func settingsOf(layers ...*section) []setting {
	var all []setting
	taken := map[string]bool{}
	for _, layer := range layers {
		if layer == nil {
			continue
		}
		for _, e := range layer.table.Entries {
			if taken[e.Key] {
				layer.row(e.Key, Needless, "set nearer to the group")
				continue
			}
			taken[e.Key] = true
			all = append(all, setting{e.Key, e.Value, layer})
		}
	}
	return all
}

// needless are the settings that nothing here needs, and why.
var needless = map[string]string{
	"enabled":               "a builder needs no leave",
	"module_path":           "the module's path is that of its go.mod",
	"go_proxy_mode":         "the Go tool's own settings hold: GOPROXY and `go env`",
	"go_proxy_url":          "the Go tool's own settings hold: GOPROXY and `go env`",
	"enable_go_build_cache": "builds are cached by their content",
	"push_registry":         "an image is pushed to where the ground takes it from",
	"registry_type":         "an image is pushed to where the ground takes it from",
}

// lost are the settings without a counterpart, by the kind of source, and why.
var lost = map[string]map[string]string{
	"go": {
		"runtime_image":      "the image that a Go program is put into is the ground's",
		"build_base_image":   "a Go program is built with the Go toolchain of this machine",
		"go_version":         "a Go program is built with the Go toolchain of this machine",
		"skip_runtime_image": "the image that a Go program is put into is the ground's",
	},
	"npm": {
		"base_image": "the image that a Node.js program is put into is the ground's",
	},
}

// sourceOf makes a source of a builder and its settings.
func (im *importer) sourceOf(builder string, settings []setting, b buildSettings) source {
	switch builder {
	case dockerGeneric:
		return im.dockerfile(settings)
	case dockerNode:
		for _, s := range settings {
			s.rest("npm")
		}
		return source{kind: "npm", fields: []field{{"dir", text(im.folder("."))}}}
	}
	return im.goSource(settings, b)
}

func (im *importer) goSource(settings []setting, b buildSettings) source {
	out := source{kind: "go", module: im.pathOf(settings, "module"), program: "."}
	cgo, modfile := false, "go.mod"
	for _, s := range settings {
		switch {
		case s.key == "path": // read already
		case s.key == "exec_pkg" && s.is(im, toml.String):
			out.program = s.packageName(im)
			s.note(Mapped, "package")
		case s.key == "enable_cgo" && s.is(im, toml.Boolean):
			cgo = s.value.Bool
			s.note(Mapped, "cgo")
		case s.key == "modfile" && s.is(im, toml.String):
			modfile = im.modfile(s, out.module)
		case s.key == "fresh_gomod":
			s.note(Lost, "the go.mod that is there is used: run `go mod tidy` once where it is missing or wrong")
		case s.key == "dockerfile_extensions":
			s.note(Lost, "Go programs are built without a Dockerfile: write one and use a dockerfile source where its commands are needed")
		default:
			s.rest("go")
		}
	}
	out.fields = append(out.fields, field{"module", text(im.folder(out.module))})
	if modfile != "go.mod" {
		out.fields = append(out.fields, field{"modfile", text(modfile)})
	} else if missing := path.Join(out.module, "go.mod"); !im.has(missing) {
		im.report.add(Row{im.in.Manifest.Name, 0, missing, Lost, "it isn't there, and the manifest names no other: `modfile: NAME.mod` in the go source does, as compositions may"})
	}
	if out.program != "." {
		out.fields = append(out.fields, field{"package", text(out.program)})
	}
	im.checkSDK(path.Join(out.module, modfile))
	if len(b.selectors) > 0 {
		out.fields = append(out.fields, field{"tags", texts(slices.Sorted(slices.Values(b.selectors)))})
	}
	if len(b.dependencies) > 0 {
		replace := map[string]string{}
		for _, d := range b.dependencies {
			replace[d.module] = join(d.target, d.version, "@")
		}
		out.fields = append(out.fields, field{"replace", mapping(replace)})
	}
	if cgo {
		out.fields = append(out.fields, field{"cgo", "true"})
	}
	return out
}

// modfile is the name of the go.mod that is used in the folder of a module.
func (im *importer) modfile(s setting, module string) string {
	if s.value.Text == "" {
		return "go.mod"
	}
	name := path.Clean(s.value.Text)
	switch {
	case path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../"):
		im.fault(s.from.file, s.value.Line, "`%s` leads out of the module's folder", s.from.name(s.key))
	case !im.has(path.Join(module, name)):
		im.fault(s.from.file, s.value.Line, "`%s`: there is no %s in the plan's folder", s.from.name(s.key), path.Join(module, name))
	case path.Ext(name) != ".mod":
		im.fault(s.from.file, s.value.Line, "`%s` is %s: rename it, for its name must end in .mod", s.from.name(s.key), s.value.Text)
	default:
		s.note(Mapped, "modfile")
	}
	return name
}

// has says whether the plan's folder holds a file, as far as that is known.
func (im *importer) has(name string) bool { return im.in.Files == nil || im.in.Files(name) }

// rest notes a setting that needs no look at its value.
func (s setting) rest(kind string) {
	if why, ok := needless[s.key]; ok {
		s.note(Needless, "%s", why)
		return
	}
	if why, ok := lost[kind][s.key]; ok {
		s.note(Lost, "%s", why)
		return
	}
	s.note(Unknown, "Testground's builder doesn't know this key; left out")
}

func (s setting) is(im *importer, kind toml.Kind) bool {
	if s.value.Kind == kind {
		return true
	}
	im.fault(s.from.file, s.value.Line, "`%s` must be %s, and is %s", s.from.name(s.key), kind, s.value.Kind)
	return false
}

// dockerfile makes a source of a plan's own Dockerfile. Testground lays the plan's folder into the build context as plan/.
func (im *importer) dockerfile(settings []setting) source {
	folder, args := im.pathOf(settings, "the folder of the Dockerfile"), map[string]string{}
	for _, s := range settings {
		switch {
		case s.key == "path": // read already
		case s.key == "build_args" && s.is(im, toml.TableKind):
			maps.Copy(args, s.from.pairs(s.key))
			s.from.names(s.key, args, environPattern, environRule)
			s.note(Mapped, "args")
		default:
			s.rest("dockerfile")
		}
	}
	if _, given := args["PLAN_PATH"]; !given && folder != "." {
		args["PLAN_PATH"] = folder + "/"
	}
	out := source{kind: "dockerfile", fields: []field{{"context", text(im.folder("."))}}}
	if folder != "." {
		out.fields = append(out.fields, field{"file", text(path.Join(folder, "Dockerfile"))})
	}
	if len(args) > 0 {
		out.fields = append(out.fields, field{"args", mapping(args)})
	}
	im.report.add(Row{im.in.Manifest.Name, 0, "Dockerfile", Changed, "its build context is the plan's folder, which Testground calls plan/: `COPY ./plan/x` becomes `COPY x`"})
	return out
}

// folder is a path inside the plan as seen from the pipeline.
func (im *importer) folder(inside string) string {
	return path.Join(".", im.in.Folder, inside)
}

// chooseBuilder is the builder of a plan or group that names none.
func (im *importer) chooseBuilder(m *manifest, named string, line int, file string) string {
	if named == "" && (find(m.builders, m.builder) != nil || !slices.Contains(builders, m.builder)) {
		named = m.builder
	}
	if named == "" {
		for _, b := range builders {
			if find(m.builders, b) == nil {
				continue
			}
			if m.builder != "" {
				im.report.add(Row{im.in.Manifest.Name, 0, "builders", Changed, "the default builder " + m.builder + " isn't among them: " + b + " is taken"})
			}
			return b
		}
		im.fault(im.in.Manifest.Name, 0, "names no builder that there is (%s)", strings.Join(builders, ", "))
		return ""
	}
	if !slices.Contains(builders, named) {
		im.fault(file, line, "there is no builder %s: choose one of %s", named, strings.Join(builders, ", "))
		return ""
	}
	if find(m.builders, named) == nil {
		im.fault(file, line, "the plan doesn't support the builder %s: its manifest names %s", named, fmt.Sprint(names(m.builders)))
		return ""
	}
	return named
}
