//go:build linux

package namespaces

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMounts(t *testing.T) {
	const text = `22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:5 net:[4026532] /with\040space/and\134slash rw - nsfs nsfs rw
a line that is none
24 22 0:6 / /x rw master:1 propagate_from:2 - tmpfs tmpfs rw
`
	got := parseMounts(text)
	want := []mount{{"/", "ext4"}, {`/with space/and\slash`, "nsfs"}, {"/x", "tmpfs"}}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, not %v", got[i], want[i])
		}
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add("23 22 0:5 net:[4026532] /a\\040b rw - nsfs nsfs rw\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got := len(parseMounts(text)); got > strings.Count(text, "\n")+1 {
			t.Errorf("%d mounts in %q", got, text)
		}
	})
}

// held is a folder for namespaces, which are let go of when the test ends.
func held(t *testing.T) Folder {
	if os.Geteuid() != 0 {
		t.Skip("namespaces that files hold take root")
	}
	f := Folder(filepath.Join(t.TempDir(), "namespaces"))
	if err := f.Prepare(); errors.Is(err, unix.EPERM) {
		t.Skipf("mounts are not allowed here: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Clear(string(f)); err != nil {
			t.Error(err)
		}
	})
	return f
}

// in has a function run inside a machine.
func in(t *testing.T, f Folder, machine string, look func() error) {
	t.Helper()
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := f.Enter(machine)
		if err == nil {
			err = look()
		}
		ended <- err
	}()
	if err := <-ended; err != nil {
		t.Errorf("in %s: %v", machine, err)
	}
}

// TestMachines makes two machines, each with its own files, name and network, and enters them.
func TestMachines(t *testing.T) {
	f := held(t)
	for _, machine := range []string{"one", "two"} {
		root := Root{
			Folder: t.TempDir(), Layered: []string{"/etc", "/var"}, Own: []string{"/var/lib/groundplan-test"}, Fresh: []string{"/run"},
			Files: map[string][]byte{"/etc/groundplan-test": []byte(machine), "/etc/hostname": []byte(machine)},
		}
		if err := f.Make(machine, root.Mount); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
			t.Skipf("no layers can be laid here: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
		in(t, f, machine, func() error {
			return os.WriteFile("/var/lib/groundplan-test/file", []byte(machine), 0o600)
		})
		own := filepath.Join(root.Folder, "own", "var/lib/groundplan-test/file")
		if content, err := os.ReadFile(own); err != nil || string(content) != machine {
			t.Errorf("what %s wrote isn't seen at %s: %q, %v", machine, own, content, err)
		}
	}
	for _, machine := range []string{"one", "two"} {
		if !f.Holds(machine) {
			t.Errorf("%s is not held", machine)
		}
		in(t, f, machine, func() error { return look(t, machine) })
	}
	for _, outside := range []string{"/etc/groundplan-test", "/var/lib/groundplan-test"} {
		if _, err := os.Stat(outside); err == nil {
			t.Errorf("%s is seen outside", outside)
		}
	}
	if f.Holds("three") {
		t.Error("a machine is held that was never made")
	}
}

// look looks around on a machine.
func look(t *testing.T, machine string) error {
	for _, file := range []string{"/etc/groundplan-test", "/etc/hostname", "/var/lib/groundplan-test/file"} {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if string(content) != machine {
			t.Errorf("%s holds %q on %s", file, content, machine)
		}
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	if got := string(bytes.TrimRight(name.Nodename[:], "\x00")); got != machine {
		t.Errorf("%s is called %s", machine, got)
	}
	links, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		return err
	}
	if strings.Contains(string(links), "eth0") {
		t.Errorf("%s has the host's links: %s", machine, links)
	}
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " - nsfs ") {
			t.Errorf("%s holds another machine's namespace: %s", machine, line)
		}
	}
	if entries, err := os.ReadDir("/run"); err != nil || len(entries) > 0 {
		t.Errorf("%s has something in its fresh folder: %v, %v", machine, entries, err)
	}
	return nil
}

func TestMakeFails(t *testing.T) {
	f := held(t)
	reason := errors.New("the reason")
	if err := f.Make("broken", func() error { return reason }); !errors.Is(err, reason) || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v", err)
	}
	if f.Holds("broken") {
		t.Error("what failed is held")
	}
}

// TestClear sees that clearing needs no particular state, and takes what is mounted on each other.
func TestClear(t *testing.T) {
	f := held(t)
	if err := f.Make("one", func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Clear(string(f)); err != nil {
			t.Fatal(err)
		}
	}
	if f.Holds("one") {
		t.Error("it is still held")
	}
	if err := Clear(filepath.Join(t.TempDir(), "missing")); err != nil {
		t.Errorf("nothing can't be cleared: %v", err)
	}
}
