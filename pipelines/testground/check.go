package testground

import (
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/pipelines/testground/internal/toml"
)

// What the language asks of names and texts that Testground lets through.
var (
	labelPattern   = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.-]{0,62}$`)
	environPattern = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	coresPattern   = regexp.MustCompile(`^([0-9]{1,12}m|[0-9]{1,9}(\.[0-9]{1,3})?)$`)
	tagPattern     = regexp.MustCompile(`^[a-zA-Z0-9_.]+$`)
	modulePattern  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._~/-]*$`)
	versionPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._+/-]*$`)
	packagePattern = regexp.MustCompile(`^[a-zA-Z0-9_./~][a-zA-Z0-9_./~+-]*$`)
)

const (
	labelRule   = "a name begins with a letter or _ and has up to 63 letters, digits, dots, _ and -"
	environRule = "a name begins with a letter or _ and has letters, digits and _"
)

// names refuses names that can't be handed over.
func (s *section) names(key string, values map[string]string, pattern *regexp.Regexp, rule string) {
	for _, name := range sortedKeys(values) {
		if !pattern.MatchString(name) {
			s.im.fault(s.file, s.table.Get(key).Line, "`%s` has the name %q, which can't be handed over: %s", s.name(key), name, rule)
		}
	}
}

// ports reads exposed_ports.
func (s *section) ports(key string) map[string]string {
	all := s.pairs(key)
	s.names(key, all, environPattern, environRule)
	for _, label := range sortedKeys(all) {
		n, err := strconv.Atoi(all[label])
		if err != nil || n < 1 || n > 65535 {
			s.im.fault(s.file, s.table.Get(key).Line, "`%s` has the port %q, and ports go from 1 to 65535", s.name(key), all[label])
		}
		all[label] = strconv.Itoa(n)
	}
	return all
}

// longestTimeout is what a stage may last, in minutes: a year.
const longestTimeout = 366 * 24 * 60

func (s setting) minutes(im *importer) string {
	n := s.value.Int
	if n < 1 || n > longestTimeout {
		im.fault(s.from.file, s.value.Line, "`%s` is %d: it goes from 1 to %d minutes", s.from.name(s.key), n, longestTimeout)
	}
	return strconv.FormatInt(n, 10) + "m"
}

// checkBuild refuses what would be no build tag, module or version.
func (s *section) checkBuild(selectors []string, dependencies []dependency) {
	for _, tag := range selectors {
		if !tagPattern.MatchString(tag) {
			s.im.fault(s.file, s.line(), "the selector %q of `%s` is no build tag", tag, s.path)
		}
	}
	seen := map[string]bool{}
	for _, d := range dependencies {
		switch {
		case !modulePattern.MatchString(d.module):
			s.im.fault(s.file, d.line, "a dependency's `module` is %q, which is none", d.module)
		case d.target != "" && !modulePattern.MatchString(d.target):
			s.im.fault(s.file, d.line, "the dependency %s has the target %q, which is no module", d.module, d.target)
		case !versionPattern.MatchString(d.version):
			s.im.fault(s.file, d.line, "the dependency %s has the version %q, which is none", d.module, d.version)
		case seen[d.module]:
			s.im.fault(s.file, d.line, "the dependency %s stands there twice", d.module)
		}
		seen[d.module] = true
	}
}

// packageName checks a package and writes it as we do: a folder of the module begins with a dot, or else it is an
// import path.
func (s setting) packageName(im *importer) string {
	name := s.value.Text
	if name == "" {
		return "."
	}
	clean := path.Clean(name)
	if !packagePattern.MatchString(name) || path.IsAbs(name) || clean == ".." || strings.HasPrefix(clean, "../") {
		im.fault(s.from.file, s.value.Line, "`%s` is %q, which is no package of the module", s.from.name(s.key), name)
	}
	first, _, _ := strings.Cut(name, "/")
	if strings.HasPrefix(name, ".") || strings.Contains(first, ".") {
		return name
	}
	return "./" + name
}

// pathOf is the folder inside the plan that is built.
func (im *importer) pathOf(settings []setting, became string) string {
	for _, s := range settings {
		if s.key != "path" || !s.is(im, toml.String) {
			continue
		}
		s.note(Mapped, "%s", became)
		folder := path.Clean(s.value.Text)
		if path.IsAbs(folder) || folder == ".." || strings.HasPrefix(folder, "../") {
			im.fault(s.from.file, s.value.Line, "`%s` leads out of the plan's folder", s.from.name(s.key))
		}
		return folder
	}
	return "."
}

// quantities writes what an instance asks for in our units.
func (im *importer) quantities(res resources, r runner) (cpu, memory string) {
	file, line := r.file, r.line
	if im.in.Composition != nil && res.line > 0 {
		file, line = im.in.Composition.Name, res.line
	}
	cpu, memory = res.cpu, res.memory
	if cpu == "" {
		cpu = r.cpu
	}
	if memory == "" {
		memory = r.memory
	}
	if cpu != "" && !coresPattern.MatchString(cpu) {
		im.fault(file, line, "cpu %q is no number of cores, such as 500m or 2", cpu)
	}
	if memory == "" {
		return cpu, ""
	}
	size, err := pipelines.ParseSize(memory)
	if n, plain := strconv.ParseInt(memory, 10, 64); plain == nil && n > 0 {
		size, err = pipelines.Size(n), nil // a bare number is bytes to Kubernetes
	}
	if err != nil {
		im.fault(file, line, "memory %q is no size, such as 512Mi", memory)
	}
	return cpu, size.String()
}
