package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// metaPackage always depends on Debian's newest kernel for virtual machines. It has netem, and is small.
const metaPackage = "linux-image-cloud-amd64"

// kernel is what a machine boots.
type kernel struct {
	name    string
	image   []byte
	modules map[string][]byte // by name, with underscores
}

// fetchKernel downloads Debian's kernel, unless it is in the folder already, and unpacks it.
func fetchKernel(ctx context.Context, cache string) (kernel, error) {
	name, err := newestKernel(ctx)
	if err != nil {
		return kernel{}, fmt.Errorf("finding Debian's kernel: %w (is this a Debian with package lists? `apt-get update`)", err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return kernel{}, fmt.Errorf("keeping Debian's kernel: %w", err)
	}
	found, err := filepath.Glob(filepath.Join(cache, name+"_*.deb"))
	if err != nil {
		return kernel{}, err
	}
	if len(found) == 0 {
		if found, err = download(ctx, name, cache); err != nil {
			return kernel{}, fmt.Errorf("downloading %s: %w", name, err)
		}
	}
	k, err := unpack(ctx, found[0])
	if err != nil {
		return kernel{}, fmt.Errorf("unpacking %s: %w", found[0], err)
	}
	k.name = name
	return k, nil
}

// newestKernel asks apt which package the meta package stands for.
func newestKernel(ctx context.Context) (string, error) {
	said, err := run(exec.CommandContext(ctx, "apt-cache", "depends", "--important", metaPackage))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(said) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			return name, nil
		}
	}
	return "", fmt.Errorf("apt doesn't say what %s depends on, but %q", metaPackage, said)
}

// download puts the package into the folder once it is whole.
func download(ctx context.Context, name, cache string) ([]string, error) {
	scratch, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	cmd := exec.CommandContext(ctx, "apt-get", "download", "--quiet", name)
	cmd.Dir = scratch
	if _, err := run(cmd); err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(scratch, name+"_*.deb"))
	if err != nil || len(found) != 1 {
		return nil, errors.Join(fmt.Errorf("apt-get download left %d packages", len(found)), err)
	}
	kept := filepath.Join(cache, filepath.Base(found[0]))
	return []string{kept}, os.Rename(found[0], kept)
}

// unpack reads the kernel and its modules from a package.
func unpack(ctx context.Context, deb string) (kernel, error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return kernel{}, err
	}
	if err := cmd.Start(); err != nil {
		return kernel{}, err
	}
	k, err := readKernel(tar.NewReader(out))
	_, drained := io.Copy(io.Discard, out) // else it may never end
	return k, errors.Join(err, drained, cmd.Wait())
}

func readKernel(files *tar.Reader) (kernel, error) {
	k := kernel{modules: map[string][]byte{}}
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return kernel{}, err
		}
		file := path.Base(header.Name)
		name, suffix, _ := strings.Cut(file, ".ko")
		switch {
		case header.Typeflag != tar.TypeReg:
		case strings.HasPrefix(file, "vmlinuz-"):
			k.image, err = io.ReadAll(files)
		case name == file:
		case suffix == "":
			k.modules[underscored(name)], err = io.ReadAll(files)
		case suffix == ".xz":
			k.modules[underscored(name)], err = decompressed(files)
		default:
			err = fmt.Errorf("%s is compressed in a way that this program doesn't know", header.Name)
		}
		if err != nil {
			return kernel{}, err
		}
	}
	if k.image == nil || len(k.modules) == 0 {
		return kernel{}, fmt.Errorf("it holds %d modules and a kernel of %d bytes", len(k.modules), len(k.image))
	}
	return k, nil
}

// decompressed reads a module as later Debians pack it.
func decompressed(in io.Reader) ([]byte, error) {
	cmd := exec.Command("xz", "--decompress", "--stdout")
	cmd.Stdin = in
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	return out.Bytes(), err
}

// run runs a program and returns what it says; its error holds what it complains about.
func run(cmd *exec.Cmd) (string, error) {
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, complaint.String())
	}
	return string(out), nil
}
