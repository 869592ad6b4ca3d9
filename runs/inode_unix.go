//go:build unix

package runs

import (
	"io/fs"
	"syscall"
)

// sharedInode is what a file has in common with its other names; several says whether it has any.
func sharedInode(info fs.FileInfo) (id inode, several bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, false
	}
	return inode{uint64(stat.Dev), stat.Ino}, stat.Nlink > 1 //nolint:unconvert // its type differs between systems
}
