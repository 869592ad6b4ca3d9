//go:build !unix

package retention

import "io/fs"

func onDisk(info fs.FileInfo) (inode, int64, bool) { return inode{}, info.Size(), false }
