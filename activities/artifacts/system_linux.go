package artifacts

import "syscall"

// changeTime is when the file's content or attributes last changed, which nobody can set back.
func changeTime(stat *syscall.Stat_t) int64 { return stat.Ctim.Nano() }

// dieWithUs makes a process end when the thread that starts it ends, so that a killed builder leaves no compiler behind
// that still writes.
func dieWithUs(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGKILL }
