package node_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/node"
)

// placed gives a run instances in pods, and returns the pods' folders.
func (a *agent) placed(run string, groups ...pipelines.Group) map[string]string {
	a.t.Helper()
	a.ensure(run)
	ask := control.Placement{Run: run, Node: &control.Node{Name: "n1"}}
	folders := map[string]string{}
	slot := 0
	for _, g := range groups {
		ask.All = append(ask.All, control.Group{Group: g})
		for i := range g.Instances {
			uid := fmt.Sprintf("uid-%d", slot)
			ask.Node.Pods = append(ask.Node.Pods, control.Pod{Slot: slot, UID: uid})
			name := fmt.Sprintf("%s/%d", g.Name, i)
			folders[name] = filepath.Join(a.options.Kubelet, "pods", uid, "volumes", "kubernetes.io~empty-dir", "groundplan", "outputs")
			if err := os.MkdirAll(folders[name], 0o755); err != nil {
				a.t.Fatal(err)
			}
			slot++
		}
	}
	if _, err := a.Control(run).Place(a.t.Context(), ask); err != nil {
		a.t.Fatal(err)
	}
	return folders
}

// unpacked reads an archive to its end.
func (a *agent) unpacked(run string, o node.ArchiveOptions) (map[string]string, node.Manifest) {
	a.t.Helper()
	stream, err := a.Archive(a.t.Context(), run, o)
	if err != nil {
		a.t.Fatal(err)
	}
	defer stream.Close()
	files := map[string]string{}
	for r := tar.NewReader(stream); ; {
		header, err := r.Next()
		if err != nil {
			a.t.Fatalf("%v; no manifest after %d files", err, len(files))
		}
		text, err := io.ReadAll(r)
		if err != nil {
			a.t.Fatal(err)
		}
		if header.Name == node.ManifestName {
			var m node.Manifest
			if err := json.Unmarshal(text, &m); err != nil {
				a.t.Fatal(err)
			}
			return files, m
		}
		files[header.Name] = string(text)
	}
}

func TestArchive(t *testing.T) {
	a := startAgent(t, node.Options{})
	folders := a.placed("r1", pipelines.Group{Name: "a", Instances: 2}, pipelines.Group{Name: "b", Instances: 2})
	other := t.TempDir()
	write(t, filepath.Join(other, "secret"), "secret")
	for name, folder := range folders {
		write(t, filepath.Join(folder, "stdout.log"), "I am "+name)
	}
	hostile := folders["a/1"]
	write(t, filepath.Join(hostile, "deep", "er", "x"), "deep")
	for link, target := range map[string]string{
		"absolute": filepath.Join(other, "secret"), "up": "../../../../../../../etc/passwd", "folder": other,
		"neighbour": "../../../../../uid-0/volumes/kubernetes.io~empty-dir/groundplan/outputs/stdout.log",
	} {
		if err := os.Symlink(target, filepath.Join(hostile, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(hostile, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(hostile, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The folder of outputs itself may be made a link.
	if err := errors.Join(os.RemoveAll(folders["b/0"]), os.Symlink(other, folders["b/0"]), os.RemoveAll(filepath.Join(folders["b/1"], "..", "..", "..", ".."))); err != nil {
		t.Fatal(err)
	}
	write(t, a.folder("r1").Stage("s"), "{}\n")
	write(t, a.folder("r1").Events(), "{}\n")
	files, m := a.unpacked("r1", node.ArchiveOptions{})
	for name, text := range map[string]string{
		"outputs/a/0/stdout.log": "I am a/0", "outputs/a/1/stdout.log": "I am a/1", "outputs/a/1/deep/er/x": "deep",
		"stages/s.jsonl": "{}\n", "events.jsonl": "{}\n", "sidecar.log": "",
	} {
		if got, ok := files[name]; !ok || got != text {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
		delete(files, name)
	}
	if len(files) > 0 {
		t.Errorf("also in it: %q", files)
	}
	for _, name := range []string{"absolute", "up", "folder", "neighbour", "pipe", "sock"} {
		if m.Skipped["outputs/a/1/"+name] == "" {
			t.Errorf("%s isn't named: %+v", name, m)
		}
	}
	if len(m.Gone) != 2 || m.Gone["b/0"] == "" || m.Gone["b/1"] == "" || m.Files != 6 || m.SkippedCount != 6 || strings.Join(m.Instances, " ") != "a/0 a/1" {
		t.Errorf("%+v", m)
	}
	one := 0
	for _, c := range []struct {
		o     node.ArchiveOptions
		files int
	}{{node.ArchiveOptions{Only: node.OnlyOutputs}, 3}, {node.ArchiveOptions{Only: node.OnlyRecords}, 3}, {node.ArchiveOptions{Group: "a"}, 3}, {node.ArchiveOptions{Group: "a", Index: &one}, 1}} {
		if _, m := a.unpacked("r1", c.o); m.Files != c.files {
			t.Errorf("%+v: %+v", c.o, m)
		}
	}
}

// TestAnArchiveOfFilesThatChange reads while files grow and shrink.
func TestAnArchiveOfFilesThatChange(t *testing.T) {
	a := startAgent(t, node.Options{})
	folders := a.placed("r1", pipelines.Group{Name: "a", Instances: 1})
	path := filepath.Join(folders["a/0"], "big")
	write(t, path, strings.Repeat("0123456789abcdef", 1<<16))
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for n := int64(0); ; n++ {
			select {
			case <-stop:
				return
			default:
				_ = os.Truncate(path, (n*7919)%(4<<20))
			}
		}
	}()
	for range 8 {
		if _, m := a.unpacked("r1", node.ArchiveOptions{Group: "a"}); m.Files != 1 {
			t.Errorf("%+v", m)
		}
	}
	close(stop)
	<-stopped
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}
