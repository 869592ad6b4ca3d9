package artifacts

import (
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
)

// buildFlags are the flags of `go build` that a pipeline may give, and how their value is checked; nil: no value. All
// others are refused: among them are some that run other programs (-exec, -toolexec) or read and write elsewhere
// (-o, -overlay, -modfile, -pkgdir, -C).
var buildFlags = map[string]func(string) bool{
	"race":      nil,
	"msan":      nil,
	"asan":      nil,
	"cover":     nil,
	"a":         nil,
	"v":         nil,
	"x":         nil,
	"trimpath":  nil,
	"covermode": oneOf("set", "count", "atomic"),
	"coverpkg":  func(v string) bool { return !strings.HasPrefix(v, "-") },
	"buildmode": oneOf("default", "exe", "pie"),
	"p":         regexp.MustCompile(`^[1-9][0-9]{0,3}$`).MatchString,
	"pgo":       func(v string) bool { return v == "auto" || v == "off" || filepath.IsLocal(v) },
	"tags":      regexp.MustCompile(`^[\w.,]*$`).MatchString,
	"ldflags":   words(map[string]bool{"-s": false, "-w": false, "-X": true}),
	"gcflags":   compilerFlags,
}

func oneOf(values ...string) func(string) bool {
	return func(v string) bool { return slices.Contains(values, v) }
}

// words allows a list of flags, where true says that the next word belongs to the flag.
func words(allowed map[string]bool) func(string) bool {
	return func(value string) bool {
		list := strings.Fields(value)
		for i := 0; i < len(list); i++ {
			name, _, joined := strings.Cut(strings.Trim(list[i], `"'`), "=")
			takes, known := allowed[name]
			if !known {
				return false
			}
			if takes && !joined {
				i++
			}
		}
		return true
	}
}

// compilerFlags allows `-N -l` and the like, with or without a pattern of packages before them.
func compilerFlags(value string) bool {
	if pattern, rest, found := strings.Cut(value, "="); found && !strings.HasPrefix(pattern, "-") {
		value = rest
	}
	return words(map[string]bool{"-N": false, "-l": false, "-m": false, "-B": false, "-e": false, "-d": false, "-lang": false})(value)
}

// checkGoSource refuses what could do more than build a program from the sources that are named.
func checkGoSource(source pipelines.GoSource) *Fault {
	if fault := checkFlags(source); fault != nil {
		return fault
	}
	for _, tag := range source.Tags {
		if !regexp.MustCompile(`^[\w.]+$`).MatchString(tag) {
			return wrong("%q is not a build tag", tag)
		}
	}
	pkg := source.Package
	if strings.HasPrefix(pkg, "-") || path.IsAbs(pkg) || pkg == ".." || strings.HasPrefix(path.Clean(pkg), "../") || strings.HasSuffix(pkg, ".go") {
		return wrong("package %q must be an import path or a folder of the module, such as ./cmd/peer", pkg)
	}
	for _, list := range []map[string]string{source.Replace, source.Require} {
		for module, value := range list {
			if !modulePath.MatchString(module) || !moduleValue.MatchString(value) {
				return wrong("%s: %s is not a module and a version", module, value)
			}
		}
	}
	return nil
}

var (
	modulePath  = regexp.MustCompile(`^[\w][\w.~/-]*$`)
	moduleValue = regexp.MustCompile(`^[\w.][\w.~/@+-]*$`)
)

// checkFlags checks the flags in both of their forms, `-name=value` and `-name`, `value`.
func checkFlags(source pipelines.GoSource) *Fault {
	for i := 0; i < len(source.Flags); i++ {
		flag := source.Flags[i]
		name, value, joined := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(flag, "-"), "-"), "=")
		check, known := buildFlags[name]
		if !known || !strings.HasPrefix(flag, "-") {
			return wrong("the build flag %s is refused: it could reach outside the build", flag)
		}
		if check == nil {
			if joined && value != "true" && value != "false" {
				return wrong("the build flag -%s takes no value", name)
			}
			continue
		}
		if !joined {
			i++
			if i == len(source.Flags) {
				return wrong("the build flag -%s needs a value", name)
			}
			value = source.Flags[i]
		}
		if !check(value) {
			return wrong("the value %q of the build flag -%s is refused: it could reach outside the build", value, name)
		}
	}
	if !source.Cgo && slices.ContainsFunc(source.Flags, func(f string) bool { return slices.Contains([]string{"race", "msan", "asan"}, strings.Trim(f, "-")) }) {
		return wrong("the flags -race, -msan and -asan need `cgo: true`")
	}
	return nil
}
