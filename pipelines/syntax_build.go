package pipelines

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// sourceSyntax is what an artifact is built from.
type sourceSyntax struct {
	located
	golang     *goSyntax
	image      value
	dockerfile *dockerfileSyntax
	executable *executableSyntax
	npm        *npmSyntax
}

var sourceKeys = []string{"go", "image", "dockerfile", "executable", "npm"}

var sourceObject = &object[sourceSyntax]{
	name: "source", doc: "What an artifact is built from: exactly one of the keys.",
	fields: []field[sourceSyntax]{
		key("go", "A Go main package.", pointer[goSyntax]{goObject}, func(s *sourceSyntax) **goSyntax { return &s.golang }),
		key("image", "The reference of an image that exists.", &scalar{kind: kindString, allow: imageReference},
			func(s *sourceSyntax) *value { return &s.image }),
		key("dockerfile", "An image to be built.", pointer[dockerfileSyntax]{dockerfileObject},
			func(s *sourceSyntax) **dockerfileSyntax { return &s.dockerfile }),
		key("executable", "A file that exists: its path, or a mapping.", pointer[executableSyntax]{either[executableSyntax]{
			converted[value, executableSyntax]{filledForm, func(v value) executableSyntax { return executableSyntax{path: v} }},
			executableObject,
		}}, func(s *sourceSyntax) **executableSyntax { return &s.executable }),
		key("npm", "A Node.js package.", pointer[npmSyntax]{npmObject}, func(s *sourceSyntax) **npmSyntax { return &s.npm }),
	},
	check: func(d *decoder, s *sourceSyntax) { exactlyOne(d, &s.located, "an artifact's source", sourceKeys) },
}

type goSyntax struct {
	located
	module, modfile, pkg, cgo value
	tags, flags               []value
	replace, require          []entry[value]
}

var goObject = &object[goSyntax]{
	name: "go source", doc: "A Go main package.",
	fields: []field[goSyntax]{
		key("module", "The folder of the go.mod, relative to this file.", filledForm,
			func(g *goSyntax) *value { return &g.module }).defaultsTo("."),
		key("modfile", "A file of the module, relative to its folder, that stands in for its go.mod, as does the .sum beside it for its go.sum. "+
			"The folder needs no go.mod then.", &scalar{kind: kindString, allow: modfile},
			func(g *goSyntax) *value { return &g.modfile }).defaultsTo("go.mod"),
		key("package", "An import path, or a folder inside the module.", &scalar{kind: kindString, allow: argument},
			func(g *goSyntax) *value { return &g.pkg }).defaultsTo("."),
		key("tags", "Build tags.", list[value]{elem: &scalar{kind: kindString, allow: matching(tagPattern, "a build tag")}},
			func(g *goSyntax) *[]value { return &g.tags }),
		key("replace", "Module path to a version, to `module@version`, or to a folder (`./…`) relative to this file.",
			mapping[value]{what: "module", keys: modulePattern, rule: moduleRule, elem: &scalar{kind: kindString, allow: replacement}},
			func(g *goSyntax) *[]entry[value] { return &g.replace }),
		key("require", "Module path to a version.",
			mapping[value]{what: "module", keys: modulePattern, rule: moduleRule, elem: &scalar{kind: kindString, allow: matching(versionPattern, "a version")}},
			func(g *goSyntax) *[]entry[value] { return &g.require }),
		key("cgo", "Whether cgo is on.", boolForm, func(g *goSyntax) *value { return &g.cgo }).defaultsTo("false"),
		key("flags", "Flags for `go build`; "+strings.Join(refusedFlags, ", ")+" are refused.",
			list[value]{elem: &scalar{kind: kindString, allow: buildFlag}}, func(g *goSyntax) *[]value { return &g.flags }),
	},
}

var (
	tagPattern     = regexp.MustCompile(`^[a-zA-Z0-9_.]+$`)
	modulePattern  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._~/-]*$`)
	versionPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._+/-]*$`)
	refusedFlags   = []string{"-o", "-C", "-exec", "-toolexec", "-overlay", "-modfile"}
)

const moduleRule = "a module path has letters, digits, dots, _, ~, - and slashes"

func matching(pattern *regexp.Regexp, what string) func(any) error {
	return func(v any) error {
		if text, ok := v.(string); ok && !pattern.MatchString(text) {
			return fmt.Errorf("`%s` is not %s", clip(text), what)
		}
		return nil
	}
}

// modfile refuses what can't be a go.mod inside of a module.
func modfile(v any) error {
	text, _ := v.(string)
	if !filepath.IsLocal(text) || !strings.HasSuffix(text, ".mod") {
		return fmt.Errorf("`%s` is not a file of the module whose name ends in .mod", clip(text))
	}
	return nil
}

// argument refuses what a command would take for a flag.
func argument(v any) error {
	text, _ := v.(string)
	if text == "" || strings.HasPrefix(text, "-") || strings.ContainsAny(text, " \t\r\n\x00") {
		return fmt.Errorf("`%s` is not a package: an import path or ./folder", clip(text))
	}
	return nil
}

func imageReference(v any) error {
	text, _ := v.(string)
	if text == "" || strings.HasPrefix(text, "-") || strings.ContainsAny(text, " \t\r\n\x00") {
		return fmt.Errorf("`%s` is not the reference of an image (registry/name:tag)", clip(text))
	}
	return nil
}

// buildFlag refuses flags that would lead the build elsewhere.
func buildFlag(v any) error {
	text, _ := v.(string)
	if !strings.HasPrefix(text, "-") {
		return fmt.Errorf("`%s` is not a flag: write flag and value as one, -ldflags=-s", clip(text))
	}
	flag, _, _ := strings.Cut("-"+strings.TrimLeft(text, "-"), "=")
	if slices.Contains(refusedFlags, flag) {
		return fmt.Errorf("the flag `%s` is refused: it leads the build elsewhere", flag)
	}
	return nil
}

// isFolder says whether what a module is replaced with is a folder.
func isFolder(text string) bool {
	return text == "." || text == ".." || strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../")
}

func replacement(v any) error {
	text, _ := v.(string)
	if isFolder(text) {
		return nil
	}
	module, version, both := strings.Cut(text, "@")
	if !both {
		module, version = "x", text
	}
	if !modulePattern.MatchString(module) || !versionPattern.MatchString(version) {
		return fmt.Errorf("`%s` is not a version, module@version or ./folder", clip(text))
	}
	return nil
}

type dockerfileSyntax struct {
	located
	context, file, target value
	args                  []entry[value]
}

var dockerfileObject = &object[dockerfileSyntax]{
	name: "dockerfile source", doc: "An image to be built.",
	fields: []field[dockerfileSyntax]{
		key("context", "The build context, relative to this file.", filledForm,
			func(s *dockerfileSyntax) *value { return &s.context }).defaultsTo("."),
		key("file", "The Dockerfile, relative to the context.", filledForm,
			func(s *dockerfileSyntax) *value { return &s.file }).defaultsTo("Dockerfile"),
		key("target", "The stage to build.", stringForm, func(s *dockerfileSyntax) *value { return &s.target }).defaultsTo("the last"),
		key("args", "Build arguments.", mapping[value]{what: "build argument", keys: environPattern, rule: environRule, elem: textForm},
			func(s *dockerfileSyntax) *[]entry[value] { return &s.args }),
	},
}

type executableSyntax struct {
	located
	path value
	args []value
}

var executableObject = &object[executableSyntax]{
	name: "executable source", doc: "A file that exists.",
	fields: []field[executableSyntax]{
		key("path", "The file, relative to this one.", filledForm, func(s *executableSyntax) *value { return &s.path }).required(),
		key("args", "Arguments before those of the group.", list[value]{elem: textForm},
			func(s *executableSyntax) *[]value { return &s.args }),
	},
}

type npmSyntax struct {
	located
	dir, script value
}

var npmObject = &object[npmSyntax]{
	name: "npm source", doc: "A Node.js package.",
	fields: []field[npmSyntax]{
		key("dir", "The folder of the package.json, relative to this file.", filledForm,
			func(s *npmSyntax) *value { return &s.dir }).defaultsTo("."),
		key("script", "The script that starts an instance.", stringForm,
			func(s *npmSyntax) *value { return &s.script }).defaultsTo("start"),
	},
}
