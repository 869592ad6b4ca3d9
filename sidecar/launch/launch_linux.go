package launch

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Start starts a sidecar: in its own session, so that neither a closed terminal nor a Ctrl-C reaches it, and without a
// death signal, so that it outlives its starter. It is PID 1 in new PID, network, mount and UTS namespaces; when the
// caller isn't root, also in a user namespace in which the caller's user is root. The process has to call Prepare
// before anything else.
func Start(o Options) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("starting the sidecar: %w", err)
	}
	defer null.Close()
	log := o.Log
	if log == nil {
		log = null
	}
	stdin, err := input(o.Input)
	if err != nil {
		return nil, fmt.Errorf("starting the sidecar: %w", err)
	}
	defer stdin.Close()
	p, err := os.StartProcess(o.Executable, append([]string{o.Executable}, o.Args...), &os.ProcAttr{
		Dir:   o.Dir,
		Env:   o.Env,
		Files: []*os.File{stdin, log, log},
		Sys:   namespaces(os.Geteuid(), os.Getegid()),
	})
	if err != nil {
		return nil, fmt.Errorf("starting the sidecar in namespaces of its own: %w (%s)", err, advice(err))
	}
	return p, nil
}

// input is a file from which text can be read once. A pipe holds it, so that nobody has to stay to write it.
func input(text string) (*os.File, error) {
	if text == "" {
		return os.Open(os.DevNull)
	}
	if len(text) > MaxInput {
		return nil, fmt.Errorf("what it is to read has %d bytes, and %d is the most", len(text), MaxInput)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = write.WriteString(text)
	if err = errors.Join(err, write.Close()); err != nil {
		return nil, errors.Join(err, read.Close())
	}
	return read, nil
}

// namespaces are the attributes of a sidecar started by that user and group.
func namespaces(uid, gid int) *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS,
	}
	if uid != 0 {
		sys.Cloneflags |= syscall.CLONE_NEWUSER
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	return sys
}
