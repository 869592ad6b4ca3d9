//go:build linux

package supervisor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

// Name is the supervisor's own in the pod's folder.
const Name = "supervisor"

// Install copies this program into the pod's folder and makes the instance's folders there. They are open to all: the
// image that runs later may need another user than the one that this runs as. Done again, it does it over.
func Install(folder string) error {
	for _, name := range []string{wire.Outputs, wire.Temp} {
		path := filepath.Join(folder, name)
		if err := os.Mkdir(path, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("making the instance's folder: %w", err)
		}
		if err := os.Chmod(path, 0o777); err != nil { // whatever the umask
			return fmt.Errorf("opening the instance's folder: %w", err)
		}
	}
	if err := copySelf(folder); err != nil {
		return fmt.Errorf("copying the supervisor to %s: %w", folder, err)
	}
	return nil
}

func copySelf(folder string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	half := filepath.Join(folder, Name+".part")
	if err := os.Remove(half); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	to, err := os.OpenFile(half, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, self)
	if err = errors.Join(err, to.Chmod(0o755), to.Close()); err != nil {
		return err
	}
	return os.Rename(half, filepath.Join(folder, Name))
}
