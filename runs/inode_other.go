//go:build !unix

package runs

import "io/fs"

func sharedInode(fs.FileInfo) (inode, bool) { return inode{}, false }
