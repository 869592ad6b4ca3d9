//go:build unix

package retention

import (
	"io/fs"
	"syscall"
)

// onDisk is what a file takes, and what it has in common with its other names if it has several.
func onDisk(info fs.FileInfo) (id inode, bytes int64, several bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, info.Size(), false
	}
	return inode{uint64(stat.Dev), stat.Ino}, stat.Blocks * 512, !info.IsDir() && stat.Nlink > 1 //nolint:unconvert // its type differs between systems
}
