// Command image makes groundplan's own image, without a container daemon: the program and the supervisor, both static,
// and nothing else that runs. The same sources give the same digest.
//
//	go run ./internal/image --push REFERENCE [--insecure] [--architecture amd64]
//	go run ./internal/image --tar FILE [--name REFERENCE] [--architecture amd64]
//
// Its last line on stdout is the image, pinned by its digest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/groundplan/groundplan/activities/images"
)

// order is what is to be made, and where it goes.
type order struct {
	push, tar, name string
	insecure        bool
	architecture    string
	certificates    string
}

func main() {
	var o order
	flag.StringVar(&o.push, "push", "", "push it to this reference: registry.example.com/groundplan:v1")
	flag.StringVar(&o.tar, "tar", "", "write it to this file, as `docker load` and `ctr image import` take it")
	flag.StringVar(&o.name, "name", "groundplan:latest", "its name in that file")
	flag.BoolVar(&o.insecure, "insecure", false, "speak to the registry in the clear")
	flag.StringVar(&o.architecture, "architecture", runtime.GOARCH, "the nodes' architecture, as Go names it")
	flag.StringVar(&o.certificates, "certificates", systemCertificates(), "file of CA certificates for workers that call Temporal or Elasticsearch; empty: none")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := carryOut(ctx, o); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

// systemCertificates is where Debian and most others have theirs; empty where there are none.
func systemCertificates() string {
	const file = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

func carryOut(ctx context.Context, o order) error {
	if (o.push == "") == (o.tar == "") || flag.NArg() > 0 {
		return errors.New("say where it goes: either --push REFERENCE or --tar FILE")
	}
	target := o.push
	if target == "" {
		target = o.name
	}
	var options []name.Option
	if o.insecure {
		options = append(options, name.Insecure)
	}
	tag, err := name.NewTag(target, options...)
	if err != nil {
		return fmt.Errorf("%q is not the reference of an image, like registry.example.com/groundplan:v1: %w", target, err)
	}
	folder, err := os.MkdirTemp("", "groundplan-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	image, err := assemble(ctx, o, folder, build)
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	if err := deliver(ctx, o, tag, image); err != nil {
		return err
	}
	fmt.Println(tag.Context().Digest(digest.String()))
	return nil
}

// assemble has the programs built into folder, and makes the image out of them.
func assemble(ctx context.Context, o order, folder string, build func(ctx context.Context, architecture, source, to string) error) (v1.Image, error) {
	files := images.Base()
	for _, program := range []struct{ source, path string }{
		{"./cmd/groundplan", "bin/groundplan"},
		{"./cmd/groundplan-supervisor", "supervisor"},
	} {
		built := filepath.Join(folder, filepath.Base(program.path))
		if err := build(ctx, o.architecture, program.source, built); err != nil {
			return nil, err
		}
		files = append(files, images.File{Path: program.path, Mode: 0o755, From: built})
	}
	if o.certificates != "" {
		files = append(files, images.File{Path: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644, From: o.certificates})
	}
	began := time.Now()
	image, err := images.Build(v1.Platform{OS: "linux", Architecture: o.architecture}, files, v1.Config{
		User:       images.Nobody,
		Entrypoint: []string{"/bin/groundplan"},
		Env:        []string{"PATH=/bin", "HOME=/tmp"},
		WorkingDir: "/",
		Labels:     map[string]string{"org.opencontainers.image.title": "groundplan", "org.opencontainers.image.licenses": "Apache-2.0"},
	})
	if err != nil {
		return nil, fmt.Errorf("making the image: %w", err)
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	size, err := layers[0].Size()
	if err != nil {
		return nil, err
	}
	say("the image has %.1f MiB compressed (%.1f s)", mebibytes(size), time.Since(began).Seconds())
	return image, nil
}

// build has the go command make a program that needs nothing but the kernel.
func build(ctx context.Context, architecture, source, to string) error {
	began := time.Now()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture)
	said, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("building %s: %w\n%s", source, err, strings.TrimSpace(string(said)))
	}
	info, err := os.Stat(to)
	if err != nil {
		return err
	}
	say("built %s, %.1f MiB (%.1f s)", source, mebibytes(info.Size()), time.Since(began).Seconds())
	return nil
}

// deliver brings the image to where it is wanted.
func deliver(ctx context.Context, o order, tag name.Tag, image v1.Image) error {
	began := time.Now()
	if o.tar != "" {
		if err := tarball.WriteToFile(o.tar, tag, image); err != nil {
			return fmt.Errorf("writing %s: %w", o.tar, err)
		}
		say("written to %s (%.1f s)", o.tar, time.Since(began).Seconds())
		return nil
	}
	if err := remote.Write(tag, image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("pushing to %s: %w", tag, err)
	}
	say("pushed to %s (%.1f s)", tag, time.Since(began).Seconds())
	return nil
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "image: "+format+"\n", args...) }
