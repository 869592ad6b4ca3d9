//go:build linux

package cgroups

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// made is a group that is gone when the test ends.
func made(t *testing.T) string {
	if os.Geteuid() != 0 {
		t.Skip("control groups take root")
	}
	group := fmt.Sprintf("groundplan-test-%d", os.Getpid())
	if err := Make(group + "/node"); err != nil {
		t.Skipf("no control groups can be made here: %v", err)
	}
	t.Cleanup(func() {
		if err := Remove(group); err != nil {
			t.Error(err)
		}
	})
	return group
}

func TestMake(t *testing.T) {
	group := made(t)
	if err := Make(group + "/node"); err != nil {
		t.Errorf("a second time: %v", err)
	}
	folders, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range folders {
		node := filepath.Join(root, group, "node")
		if _, err := os.Stat(node); err != nil {
			t.Error(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if text, err := os.ReadFile(filepath.Join(node, file)); err == nil && !unified() && strings.TrimSpace(string(text)) == "" {
				t.Errorf("%s is empty in %s: nothing could run there", file, node)
			}
		}
	}
}

// TestKill ends a process, its child, and one deep in another hierarchy; and nobody else.
func TestKill(t *testing.T) {
	group := made(t)
	folders, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(folders[0], group, "node", "deep")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	outside := exec.Command("sleep", "60")
	inside := exec.Command("sh", "-c", "read go; sleep 60 & wait")
	other := exec.Command("sleep", "60")
	release, err := inside.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{outside, inside, other} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	own := server(group + "/servers/x")
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	for folder, cmd := range map[string]*exec.Cmd{own: inside, deep: other} {
		if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(release, "go")
	if err := Kill(group); err != nil {
		t.Fatal(err)
	}
	if left, err := members(group); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	for _, cmd := range []*exec.Cmd{inside, other} {
		if !ended(cmd.Process.Pid) {
			t.Errorf("process %d lives on", cmd.Process.Pid)
		}
	}
	if ended(outside.Process.Pid) {
		t.Error("a process outside the group was killed")
	}
	if _, err := Used(group + "/servers/x"); err != nil {
		t.Error(err)
	}
}

func TestWithoutGroup(t *testing.T) {
	const missing = "groundplan-test-missing"
	if err := Kill(missing); err != nil {
		t.Error(err)
	}
	if err := Remove(missing); err != nil {
		t.Error(err)
	}
	if _, err := Used(missing); err == nil {
		t.Error("a group that isn't there has used something")
	}
}
