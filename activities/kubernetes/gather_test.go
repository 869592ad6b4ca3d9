package kubernetes

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	nodeagent "github.com/groundplan/groundplan/sidecar/node"
)

type entry struct {
	name, text string
	kind       byte
	link       string
}

// archived is an archive of entries, with a manifest at its end unless it is cut.
func archived(t *testing.T, cut bool, entries ...entry) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if !cut {
		entries = append(entries, entry{name: nodeagent.ManifestName, text: `{"node":"n1","instances":["g/0"]}`})
	}
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		err := w.WriteHeader(&tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: 0o644, Size: int64(len(e.text))})
		if _, writing := w.Write([]byte(e.text)); err != nil || writing != nil {
			t.Fatal(err, writing)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func unpacker(t *testing.T) (*unpacking, runs.Folder) {
	t.Helper()
	folder := runs.Folder(filepath.Join(t.TempDir(), "runs", "r"))
	if err := os.MkdirAll(string(folder), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(string(folder))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return &unpacking{node: "n1", root: root, folder: folder, own: map[string]*record{}}, folder
}

// TestHostileArchive has an archive write where it shouldn't: only what belongs to instances arrives.
func TestHostileArchive(t *testing.T) {
	u, folder := unpacker(t)
	outside := filepath.Join(filepath.Dir(string(folder)), "outside")
	if err := os.MkdirAll(folder.Outputs("g", 1), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(folder.Outputs("g", 1), "link")); err != nil {
		t.Fatal(err)
	}
	err := u.unpack(archived(t, false,
		entry{name: "outputs/g/0/run.out", text: "hello"},
		entry{name: "../outside", text: "x"},
		entry{name: "/tmp/groundplan-outside", text: "x"},
		entry{name: "outputs/../../outside", text: "x"},
		entry{name: "outputs/g/0/../../../../outside", text: "x"},
		entry{name: "run.json", text: "x"},
		entry{name: "ground.json", text: "x"},
		entry{name: "outputs/g/0/link", kind: tar.TypeSymlink, link: outside},
		entry{name: "outputs/g/0/hard", kind: tar.TypeLink, link: "run.json"},
		entry{name: "outputs/g/0/pipe", kind: tar.TypeFifo},
		entry{name: "sidecar.log", text: "said"},
	))
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	_ = filepath.WalkDir(filepath.Dir(string(folder)), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			inside, _ := filepath.Rel(string(folder), path)
			have = append(have, inside)
		}
		return nil
	})
	if want := []string{"nodes/n1.log", "outputs/g/0/run.out", "outputs/g/1/link"}; !slices.Equal(have, want) {
		t.Errorf("it wrote %q, want %q", have, want)
	}
	if err := u.unpack(archived(t, false, entry{name: "outputs/g/1/link/x", text: "x"})); err == nil {
		t.Error("it went through a link")
	}
	if !slices.Equal(u.manifest.Instances, []string{"g/0"}) {
		t.Errorf("%+v", u.manifest)
	}
}

func TestCutArchive(t *testing.T) {
	whole := archived(t, false, entry{name: "outputs/g/0/run.out", text: "hello"}).Bytes()
	for _, data := range [][]byte{nil, whole[:100], whole[:700], archived(t, true, entry{name: "outputs/g/0/x", text: "y"}).Bytes()} {
		u, _ := unpacker(t)
		if err := u.unpack(bytes.NewReader(data)); !errors.Is(err, errCut) {
			t.Errorf("%d of %d bytes: %v", len(data), len(whole), err)
		}
	}
}

func TestMergeEvents(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := folder.AppendEvent(runs.Event{Time: at, Kind: "stage-started", Text: "here"}); err != nil {
		t.Fatal(err)
	}
	one := []byte(`{"time":"2026-01-02T03:04:08Z","kind":"event-began","text":"later"}` + "\n" + `{"time":"2026-01-02T03:04:0`)
	other := []byte(`{"time":"2026-01-02T03:04:06Z","kind":"event-began","text":"sooner"}` + "\n")
	for range 2 {
		if err := mergeEvents(folder, [][]byte{one, other}); err != nil {
			t.Fatal(err)
		}
	}
	events, err := folder.ReadEvents()
	if err != nil || len(events) != 3 || events[1].Text != "sooner" || events[2].Text != "later" {
		t.Errorf("%+v, %v", events, err)
	}
}

// TestSums adds up where a stage stands on nodes.
func TestSums(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	failure := func(index int, after time.Duration) *control.Instance {
		return &control.Instance{Group: "g", Index: index, Ended: at.Add(after)}
	}
	many := func(from int) (names []string) {
		for i := range 9 {
			names = append(names, instance("g", from+i))
		}
		return names
	}
	sum := sumRun([]part{
		{node: "a", status: control.RunStatus{Key: "k", Done: true, Started: at.Add(time.Second), Ended: at.Add(9 * time.Second), Groups: map[string]control.Counts{"g": {Total: 9, Succeeded: 0, Failed: 9}},
			FirstFailure: failure(10, 5*time.Second), Failing: many(10), Event: "not to be heard", Unfinished: 2}},
		{node: "b", lead: true, status: control.RunStatus{Key: "k", Started: at, Groups: map[string]control.Counts{"g": {Total: 9, Failed: 9}, "h": {Total: 2, Running: 1, Killed: 1}},
			FirstFailure: failure(1, time.Second), Failing: many(1), Event: "split began", Missed: []string{"churn"}, TimedOut: true, Lost: 1, Fault: "g/3 was lost"}},
	})
	if sum.Done || sum.Groups["g"].Total != 18 || sum.Groups["g"].Failed != 18 || sum.Groups["h"].Killed != 1 || sum.Unfinished != 2 || !sum.TimedOut {
		t.Errorf("%+v", sum)
	}
	if sum.FirstFailure.Index != 1 || len(sum.Failing) != 10 || sum.Failing[9] != "g/10" || !sum.Started.Equal(at) || !sum.Ended.Equal(at.Add(9*time.Second)) {
		t.Errorf("%+v, %+v", sum.FirstFailure, sum)
	}
	if sum.Event != "split began" || len(sum.Missed) != 1 || sum.Fault != "on node b: g/3 was lost" || sum.Lost != 1 {
		t.Errorf("%+v", sum)
	}
	if whole := sumRun([]part{{lost: "gone"}, {status: control.RunStatus{Done: true}}}); !whole.Done {
		t.Error("a node that is lost keeps the others waiting")
	}
	if got := ranges([]control.Pod{{Slot: 0}, {Slot: 1}, {Slot: 4}, {Slot: 6}, {Slot: 7}}); !slices.Equal(got, [][2]int{{0, 1}, {4, 4}, {6, 7}}) {
		t.Errorf("ranges: %v", got)
	}
}

func TestSettings(t *testing.T) {
	tolerations, err := ParseTolerations("kwok.x-k8s.io/node=fake:NoSchedule, spot, dedicated:NoExecute")
	if err != nil || len(tolerations) != 3 || tolerations[0].Value != "fake" || tolerations[1].Key != "spot" || tolerations[2].Effect != "NoExecute" {
		t.Errorf("%+v, %v", tolerations, err)
	}
	for _, wrong := range []string{"", "=x", "a:Sometimes", "a,,b"} {
		if _, err := ParseTolerations(wrong); err == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
	if selector, err := ParseNodeSelector("pool=a,zone=b"); err != nil || len(selector) != 2 {
		t.Errorf("%v, %v", selector, err)
	}
}
