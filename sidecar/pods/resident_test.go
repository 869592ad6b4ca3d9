//go:build linux

package pods

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/pods/podtest"
)

// TestSize holds the supervisor to what every pod pays for it.
func TestSize(t *testing.T) {
	const mostBinary, mostResident = 8 << 20, 6 << 20
	info, err := os.Stat(podtest.Binary(t))
	if err != nil || info.Size() > mostBinary {
		t.Errorf("the binary has %d bytes, %v", info.Size(), err)
	}
	n := newNode(t, 1, podtest.Options{Plain: true})
	p := n.sidecar(nil)
	for i := range 50 {
		program := shell("k", i, "exit 0")
		program.Env = append(program.Env, "LONG="+strings.Repeat("x", 4000))
		launch(t, p, 0, program).wait(t)
	}
	pod, err := p.at(0)
	if err != nil {
		t.Fatal(err)
	}
	l, _, _ := pod.now()
	c, err := net.Dial("tcp", l.hello.Sync) // a client that waits for its gateway
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n")
	var resident int64
	for until := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) { // it gives memory back by and by
		if resident = residentOf(t, n.pods[0].Process.Pid); resident < mostResident || time.Now().After(until) {
			break
		}
	}
	t.Logf("the binary has %d KiB, %d KiB are resident", info.Size()>>10, resident>>10)
	if resident > mostResident {
		t.Errorf("%d bytes are resident", resident)
	}
}

func residentOf(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/" + itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	var kib int64
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// BenchmarkSignalAll lets go of a node full of held programs.
func BenchmarkSignalAll(b *testing.B) {
	const pods = 100
	root := b.TempDir()
	p, err := New(Options{KubeletRoot: root, Folder: "-"})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	var homes []keeper.Home
	var slots []int
	for slot := range pods {
		pod := podtest.Start(b, root, slot, fmt.Sprint("u", slot), podtest.Options{})
		homes, slots = append(homes, keeper.Home{Slot: slot, Pod: pod.Pod}), append(slots, slot)
	}
	for _, err := range p.Place(b.Context(), homes) {
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if err := p.SignalAll(slots, 0); err != nil {
			b.Fatal(err)
		}
	}
}
