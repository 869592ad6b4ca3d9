package worker

import "golang.org/x/sys/unix"

// kernel is the kernel's release; empty when it doesn't say.
func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}
