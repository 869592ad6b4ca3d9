//go:build linux

// Package namespaces makes machines of namespaces: network, mounts and host name. They are held by files, so that they
// need no process, and are entered by the processes that run on such a machine.
package namespaces

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kinds are the namespaces of a machine, in the order in which they are entered: with the mounts, the files that hold the
// others are out of sight.
var kinds = []struct {
	name string
	flag int
}{
	{"net", unix.CLONE_NEWNET},
	{"uts", unix.CLONE_NEWUTS},
	{"mnt", unix.CLONE_NEWNS},
}

// Folder is the folder that holds the namespaces of some machines.
type Folder string

// Prepare makes the folder such that it can hold namespaces of mounts: those mustn't be seen from within themselves.
func (f Folder) Prepare() error {
	folder := string(f)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(folder, folder, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s on itself: %w", folder, err)
	}
	if err := unix.Mount("", folder, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping the mounts in %s to themselves: %w", folder, err)
	}
	return nil
}

// File holds the namespace of a kind (net, uts, mnt) of a machine.
func (f Folder) File(machine, kind string) string {
	return filepath.Join(string(f), machine+"."+kind)
}

// Holds says whether all namespaces of a machine are there.
func (f Folder) Holds(machine string) bool {
	for _, kind := range kinds {
		var s unix.Statfs_t
		if unix.Statfs(f.File(machine, kind.name), &s) != nil || s.Type != unix.NSFS_MAGIC {
			return false
		}
	}
	return true
}

// Make makes a machine's namespaces, has setup prepare them from the inside, and then holds them. Nothing that is mounted
// inside is seen outside, and the other way round; inside, mounts are shared with namespaces made of it, as a kubelet
// expects it.
func (f Folder) Make(machine string, setup func() error) error {
	inside := make(chan string)
	held, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		// The thread stays locked: it ends with its goroutine, as nothing else could run on it any more.
		runtime.LockOSThread()
		ended <- func() error {
			defer close(inside)
			if err := begin(machine); err != nil {
				return err
			}
			if err := setup(); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
				return fmt.Errorf("sharing mounts: %w", err)
			}
			inside <- fmt.Sprintf("/proc/self/task/%d/ns/", unix.Gettid())
			<-held
			return nil
		}()
	}()
	var err error
	if at, ok := <-inside; ok {
		err = f.hold(machine, at)
		close(held)
	}
	if err = errors.Join(err, <-ended); err != nil {
		return fmt.Errorf("making the namespaces of %s: %w", machine, err)
	}
	return nil
}

// begin puts the calling thread into new namespaces that see none of the others.
func begin(machine string) error {
	flags := 0
	for _, kind := range kinds {
		flags |= kind.flag
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("%w (it takes root)", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts private: %w", err)
	}
	// Whoever sees a file that holds a namespace keeps that alive: this one mustn't keep the other machines'.
	mounts, err := below("/", func(m mount) bool { return m.kind == "nsfs" })
	if err != nil {
		return err
	}
	for _, at := range mounts {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("leaving %s out: %w", at, err)
		}
	}
	return unix.Sethostname([]byte(machine))
}

func (f Folder) hold(machine, from string) error {
	for _, kind := range kinds {
		file := f.File(machine, kind.name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return err
		}
		if err := unix.Mount(from+kind.name, file, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("holding it by %s: %w", file, err)
		}
	}
	return nil
}

// Enter puts the calling thread, which must be locked, into a machine's namespaces; its process may then only become
// another program.
func (f Folder) Enter(machine string) error {
	var files []*os.File
	for _, kind := range kinds {
		file, err := os.Open(f.File(machine, kind.name))
		if err != nil {
			return fmt.Errorf("entering %s: %w", machine, err)
		}
		defer file.Close()
		files = append(files, file)
	}
	// A thread that shares its root folder with others can't change what is mounted there.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("entering %s: %w", machine, err)
	}
	for i, kind := range kinds {
		if err := unix.Setns(int(files[i].Fd()), kind.flag); err != nil {
			return fmt.Errorf("entering the namespace %s of %s: %w", kind.name, machine, err)
		}
	}
	return nil
}

// Clear lets go of everything mounted in the folder, or below any folder given, and of the folder. What was in a
// namespace goes with its last process.
func Clear(folder string) error {
	mounts, err := below(folder, func(mount) bool { return true })
	if err != nil {
		return err
	}
	for _, at := range mounts {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unmounting %s: %w", at, err)
		}
	}
	left, err := below(folder, func(mount) bool { return true })
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%s is still mounted", left[0])
	}
	return err
}

// mount is one line of mountinfo.
type mount struct{ at, kind string }

// below are the places at and below a folder where something is mounted that fits, the last mounted first.
func below(folder string, fits func(mount) bool) ([]string, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("looking what is mounted: %w", err)
	}
	var found []string
	for _, m := range parseMounts(string(text)) {
		if (folder == "/" || m.at == folder || strings.HasPrefix(m.at, folder+"/")) && fits(m) {
			found = append(found, m.at)
		}
	}
	slices.Reverse(found)
	return found, nil
}

func parseMounts(text string) []mount {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var mounts []mount
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(line, " - ")
		fields, kinds := strings.Fields(left), strings.Fields(right)
		if ok && len(fields) > 4 && len(kinds) > 0 {
			mounts = append(mounts, mount{at: unescape.Replace(fields[4]), kind: kinds[0]})
		}
	}
	return mounts
}
