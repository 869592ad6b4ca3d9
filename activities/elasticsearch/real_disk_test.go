//go:build linux

package elasticsearch

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/internal/elasticserver"
)

// TestElasticsearchDiskFull pushes to a server whose disk gets full, and again once it has been given a larger one.
func TestElasticsearchDiskFull(t *testing.T) {
	if os.Getenv(elasticserver.Variable) != "" && os.Getuid() != 0 {
		t.Skip("only root may mount a disk that is small")
	}
	disk := t.TempDir()
	if os.Getenv(elasticserver.Variable) != "" {
		if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16m"); err != nil {
			t.Skipf("a small disk can't be mounted: %v", err)
		}
		defer func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) }()
	}
	s := elasticserver.StartIn(t, disk, "cluster.routing.allocation.disk.threshold_enabled=true", "cluster.info.update.interval=10s",
		"cluster.routing.allocation.disk.watermark.low=4mb", "cluster.routing.allocation.disk.watermark.high=3mb", "cluster.routing.allocation.disk.watermark.flood_stage=2mb")
	o := run(t, map[string]string{"eu/0/run.out": numbered(30_000), "eu/1/run.out": numbered(30_000)})
	o.Input.Deadline = time.Now().Add(10 * time.Minute)
	l := patient
	l.patience = 25 * time.Second
	out, err := Server{URL: s.URL}.push(t.Context(), o, l, func(string) {})
	if err != nil || out.Reason == "" {
		t.Fatalf("with a full disk: %+v, %v", out, err)
	}
	t.Log(out.Reason)
	s.Kill()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=512m"); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	out, err = Server{URL: s.URL}.push(t.Context(), o, patient, func(string) {})
	if err != nil || out.Reason != "" {
		t.Fatalf("with a larger one: %+v, %v", out, err)
	}
	everyLineOnce(t, s, o, 30_000)
}
