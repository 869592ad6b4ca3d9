package testground

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sdkRun is the package of Testground's SDK that reports outcomes.
const sdkRun = "github.com/testground/sdk-go/run"

// reporters are all packages with something that reports: that one, and what it was before there was it.
var reporters = []string{sdkRun, "github.com/testground/sdk-go/runtime", "github.com/ipfs/testground/sdk/runtime"}

// What is known of a test case in a program.
type knowledge int

const (
	unsure  knowledge = iota // the sources don't tell; a report is expected
	reports                  // an InitializedTestCaseFn: reports on stdout and to the sync service
	plain                    // a TestCaseFn: reports on stdout
	absent                   // there is no such case
	silent                   // the program has nothing that reports
)

// program is what a plan's Go sources tell.
type program struct {
	// folders holds the files of each folder, without tests.
	folders map[string][]*ast.File
	// reporting are the folders with a file that imports one of the reporters.
	reporting map[string]bool
	// modfiles are the go.mod files, of whatever name.
	modfiles map[string][]byte
}

// readProgram parses sources. What doesn't parse tells nothing: the build will say what is wrong with it.
func readProgram(sources []File) *program {
	p := &program{folders: map[string][]*ast.File{}, reporting: map[string]bool{}, modfiles: map[string][]byte{}}
	for _, source := range sources {
		if path.Ext(source.Name) == ".mod" {
			p.modfiles[source.Name] = source.Data
		}
		if !strings.HasSuffix(source.Name, ".go") || strings.HasSuffix(source.Name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), source.Name, source.Data, parser.SkipObjectResolution)
		if err != nil {
			continue
		}
		folder := path.Dir(source.Name)
		p.folders[folder] = append(p.folders[folder], file)
		if slices.ContainsFunc(reporters, func(name string) bool { return importName(file, name) != "" }) {
			p.reporting[folder] = true
		}
	}
	return p
}

// oldSDK matches the versions of Testground's SDK for Go that speak to a Redis of the platform's, not to a sync service.
var oldSDK = regexp.MustCompile(`(?m)^\s*(?:require\s+)?(github\.com/testground/sdk-go)\s+(v0\.[0-2]\.[^\s/]*)|^\s*(?:require\s+)?(github\.com/ipfs/testground/sdk/\S+)\s+(\S+)`)

// checkSDK notes an SDK that can't reach anything here.
func (im *importer) checkSDK(modfile string) {
	found := oldSDK.FindSubmatch(im.program.modfiles[modfile])
	if found == nil {
		return
	}
	name, version := cmp.Or(string(found[1]), string(found[3])), cmp.Or(string(found[2]), string(found[4]))
	im.report.add(Row{im.in.Manifest.Name, 0, name, Lost, version + " speaks to a Redis of Testground's, which instances don't see: what synchronizes " +
		"or shapes its network fails. github.com/testground/sdk-go speaks to the sync service from v0.3.0 on: where the program " +
		"compiles with it, `require: {github.com/testground/sdk-go: v0.3.0}` in the go source"})
}

// importName is what a file calls an import; empty when it doesn't import it.
func importName(file *ast.File, wanted string) string {
	for _, i := range file.Imports {
		if imported, err := strconv.Unquote(i.Path.Value); err != nil || imported != wanted {
			continue
		}
		if i.Name != nil {
			return i.Name.Name
		}
		return path.Base(wanted)
	}
	return ""
}

// caseOf says what a program, a package of a module, does with a test case.
func (p *program) caseOf(module, pkg, name string) knowledge {
	folder := path.Join(module, pkg)
	files := p.folders[folder]
	if len(files) == 0 {
		return unsure // an import path, or generated
	}
	if !p.anyReports(module) {
		return silent
	}
	table := casesIn(files)
	if len(table.values) == 0 {
		return unsure
	}
	value, there := table.values[name]
	switch {
	case there:
		return kindOf(files, value)
	case table.open:
		return unsure
	}
	return absent
}

// anyReports says whether something in the module can: the program's own package, or one that it may call.
func (p *program) anyReports(module string) bool {
	for folder := range p.reporting {
		if module == "." || folder == module || strings.HasPrefix(folder, module+"/") {
			return true
		}
	}
	return false
}

// caseTable is the map that a program gives to InvokeMap.
type caseTable struct {
	values map[string]ast.Expr
	// open: there are entries whose names can't be read.
	open bool
}

// casesIn finds the maps of test cases: those given to InvokeMap, by themselves or by a variable's name.
func casesIn(files []*ast.File) caseTable {
	t := caseTable{values: map[string]ast.Expr{}}
	for _, file := range files {
		run := importName(file, sdkRun)
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 || !isSelector(call.Fun, run, "InvokeMap") {
				return true
			}
			switch arg := call.Args[0].(type) {
			case *ast.CompositeLit:
				t.add(arg)
			case *ast.Ident:
				t.addVariable(files, arg.Name)
			default:
				t.open = true
			}
			return true
		})
	}
	return t
}

func isSelector(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && pkg != "" && x.Name == pkg
}

func (t *caseTable) add(literal *ast.CompositeLit) {
	for _, e := range literal.Elts {
		pair, ok := e.(*ast.KeyValueExpr)
		if !ok {
			t.open = true
			continue
		}
		key, ok := pair.Key.(*ast.BasicLit)
		if !ok || key.Kind != token.STRING {
			t.open = true
			continue
		}
		if name, err := strconv.Unquote(key.Value); err == nil {
			t.values[name] = pair.Value
		}
	}
}

// addVariable adds every literal that a variable of this name is set to; one that is changed later stays open.
func (t *caseTable) addVariable(files []*ast.File, name string) {
	named := func(e ast.Expr) bool {
		id, ok := e.(*ast.Ident)
		return ok && id.Name == name
	}
	set := func(values []ast.Expr, i int) {
		if i < len(values) {
			if literal, ok := values[i].(*ast.CompositeLit); ok {
				t.add(literal)
				return
			}
		}
		t.open = true
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, id := range n.Names {
					if id.Name == name {
						set(n.Values, i)
					}
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if index, ok := left.(*ast.IndexExpr); ok && named(index.X) {
						t.open = true
					} else if named(left) {
						set(n.Rhs, i)
					}
				}
			}
			return true
		})
	}
}

// kindOf tells an InitializedTestCaseFn from a TestCaseFn: by its name, or by how many parameters it has.
func kindOf(files []*ast.File, value ast.Expr) knowledge {
	switch v := value.(type) {
	case *ast.FuncLit:
		return byParameters(v.Type)
	case *ast.Ident:
		if f := function(files, v.Name); f != nil {
			return byParameters(f.Type)
		}
	case *ast.CallExpr:
		switch name := lastName(v.Fun); name {
		case "InitializedTestCaseFn":
			return reports
		case "TestCaseFn":
			return plain
		default:
			if f := function(files, name); f != nil && f.Type.Results != nil && len(f.Type.Results.List) == 1 {
				return byType(f.Type.Results.List[0].Type)
			}
		}
	}
	return unsure
}

func byType(e ast.Expr) knowledge {
	if f, ok := e.(*ast.FuncType); ok {
		return byParameters(f)
	}
	switch lastName(e) {
	case "InitializedTestCaseFn":
		return reports
	case "TestCaseFn":
		return plain
	}
	return unsure
}

func byParameters(f *ast.FuncType) knowledge {
	switch f.Params.NumFields() {
	case 1:
		return plain
	case 2:
		return reports
	}
	return unsure
}

func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func function(files []*ast.File, name string) *ast.FuncDecl {
	for _, file := range files {
		i := slices.IndexFunc(file.Decls, func(d ast.Decl) bool {
			f, ok := d.(*ast.FuncDecl)
			return ok && f.Recv == nil && f.Name.Name == name
		})
		if i >= 0 {
			return file.Decls[i].(*ast.FuncDecl)
		}
	}
	return nil
}
