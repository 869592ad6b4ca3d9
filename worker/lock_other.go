//go:build !unix

package worker

import (
	"errors"
	"os"
)

func flock(*os.File) (bool, error) {
	return false, errors.New("this system has no file locks that end with their process; groundplan's worker runs on Linux")
}

func flockShared(file *os.File) (held bool, err error) { return flock(file) }
