package archive

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// run makes the folder of a run, with what an instance may do to its outputs.
func run(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	for name, text := range map[string]string{
		filepath.Join(dir, "run.json"):                     "{}",
		filepath.Join(dir, "outputs", "a", "0", "run.out"): "zero\n",
		filepath.Join(dir, "outputs", "a", "1", "run.out"): "one\n",
		filepath.Join(dir, "temp", "a", "0", "junk"):       "junk",
		secret: "secret",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "outputs", "a", "0")
	err := errors.Join(
		os.Symlink(secret, filepath.Join(out, "link")),
		os.Symlink(filepath.Dir(secret), filepath.Join(out, "folder-link")),
		unix.Mkfifo(filepath.Join(out, "pipe"), 0o644),
		os.Mkdir(filepath.Join(out, "empty"), 0o755),
	)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var (
	wantFiles = []string{"outputs/a/0/run.out", "outputs/a/1/run.out", "run.json"}
	wantLeft  = []string{"outputs/a/0/folder-link", "outputs/a/0/link", "outputs/a/0/pipe"}
)

func TestPack(t *testing.T) {
	target := filepath.Join(t.TempDir(), "r.tar.gz")
	result, err := Pack(run(t), "r-1", target)
	if err != nil {
		t.Fatal(err)
	}
	if result.Files != 3 || result.Bytes != 11 || !slices.Equal(result.Left, wantLeft) {
		t.Errorf("%+v", result)
	}
	file, err := os.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zip, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for entries := tar.NewReader(zip); ; {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name, ok := strings.CutPrefix(header.Name, "r-1/")
		if !ok || header.Uid != 0 || header.Uname != "" {
			t.Errorf("entry %q of %d %q", header.Name, header.Uid, header.Uname)
		}
		if header.Typeflag == tar.TypeReg {
			files = append(files, name)
		}
	}
	if !slices.Equal(files, wantFiles) {
		t.Errorf("%q", files)
	}
	if _, err := Pack(run(t), "r-1", target); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("a second time: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(target)); len(entries) != 1 {
		t.Errorf("%d files beside the archive", len(entries)-1)
	}
}

func TestCopy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	result, err := Copy(run(t), dir)
	if err != nil || result.Files != 3 || !slices.Equal(result.Left, wantLeft) {
		t.Fatalf("%+v, %v", result, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "outputs", "a", "1", "run.out"))
	if err != nil || string(text) != "one\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "temp")); err == nil {
		t.Error("temporary files were copied")
	}
	if _, err := Copy(run(t), dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a second time: %v", err)
	}
}

func TestNothingToTake(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	target := filepath.Join(t.TempDir(), "r.tar.gz")
	if _, err := Pack(missing, "r", target); err == nil {
		t.Error("packed a run that isn't there")
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("left an archive of nothing")
	}
	if _, err := Copy(missing, filepath.Join(t.TempDir(), "x")); err == nil {
		t.Error("copied a run that isn't there")
	}
}
