package artifacts

import "syscall"

// changeTime is when the file's content or attributes last changed, which nobody can set back.
func changeTime(stat *syscall.Stat_t) int64 { return stat.Ctim.Nano() }
