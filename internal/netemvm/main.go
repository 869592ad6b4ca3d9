// Command netemvm runs the tests of packages, those behind the build tag netem among them, on a kernel that has it: Debian's, in a virtual machine that is emulated
// in software, so that neither the host's kernel nor its rights matter. It needs apt's package lists, dpkg-deb and
// qemu-system-x86.
//
//	go run ./internal/netemvm [-timeout 5m] PACKAGE… [-- FLAGS OF THE TESTS…]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/groundplan/groundplan/internal/netemvm/errand"
)

// wanted is what the data network and its shaping take of a kernel's modules.
var wanted = []string{
	"veth", "sch_netem", "sch_htb", "sch_tbf", "cls_u32",
	"nf_tables", "nf_conntrack", "nft_ct", "nft_reject_inet", "nft_numgen", "nft_limit",
}

func main() {
	timeout := flag.Duration("timeout", 5*time.Minute, "stop the machine after that time")
	flag.Parse()
	packages, flags := flag.Args(), []string(nil)
	if i := slices.Index(packages, "--"); i >= 0 {
		packages, flags = packages[:i], packages[i+1:]
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	status, err := test(ctx, *timeout, packages, flags)
	if err != nil {
		fmt.Fprintln(os.Stderr, "netemvm:", err)
		status = 1
	}
	stop()
	os.Exit(status)
}

// test runs the tests of packages and returns their highest exit status.
func test(ctx context.Context, timeout time.Duration, packages, flags []string) (int, error) {
	if len(packages) == 0 {
		return 0, errors.New("no package named: go run ./internal/netemvm ./sidecar/shaper/netem")
	}
	folder, err := os.MkdirTemp("", "groundplan-netemvm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	cache, err := os.UserCacheDir()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	k, err := fetchKernel(ctx, filepath.Join(cache, "groundplan", "netemvm"))
	if err != nil {
		return 0, err
	}
	files, err := pack(ctx, folder, k, packages, flags)
	if err != nil {
		return 0, err
	}
	m, err := prepare(folder, k, files)
	if err != nil {
		return 0, fmt.Errorf("writing the machine's files: %w", err)
	}
	fmt.Printf("netemvm: %s, ready to boot after %.1f s\n", k.name, time.Since(began).Seconds())
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it took more than %s (-timeout)", timeout))
	defer cancel()
	began = time.Now()
	status, err := m.run(ctx, os.Stdout)
	fmt.Printf("netemvm: the machine ran for %.1f s\n", time.Since(began).Seconds())
	return status, err
}

// pack builds the test programs and puts everything that the machine needs into an archive.
func pack(ctx context.Context, folder string, k kernel, packages, flags []string) (archive, error) {
	files := archive{"etc/hosts": []byte("127.0.0.1\tlocalhost\n")}
	modules, err := closure(wanted, k.modules)
	if err != nil {
		return nil, err
	}
	var e errand.Errand
	for _, name := range modules {
		file := path.Join("modules", name+".ko")
		files[file] = k.modules[name]
		e.Modules = append(e.Modules, "/"+file)
	}
	if files["init"], err = build(ctx, folder, "build", "github.com/groundplan/groundplan/internal/netemvm/guest"); err != nil {
		return nil, err
	}
	for i, p := range packages {
		file := fmt.Sprintf("tests/%d-%s.test", i, path.Base(p))
		if files[file], err = build(ctx, folder, "test", "-c", "-tags", "netem", p); err != nil {
			return nil, err
		}
		e.Programs = append(e.Programs, append([]string{"/" + file}, flags...))
	}
	files[errand.File[1:]], err = json.Marshal(e)
	return files, err
}

// build has the go command make a program that needs nothing of the system but the kernel.
func build(ctx context.Context, folder string, command ...string) ([]byte, error) {
	program := filepath.Join(folder, "program")
	// -o goes before the package, which is last.
	last := len(command) - 1
	arguments := slices.Concat(command[:last], []string{"-trimpath", "-o", program}, command[last:])
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if _, err := run(cmd); err != nil {
		return nil, err
	}
	return os.ReadFile(program)
}
