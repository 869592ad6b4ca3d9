package control

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/groundplan/groundplan/runs"
)

// longestSocket is the longest path, in bytes, that Socket gives: the kernel takes 107.
const longestSocket = 100

// Socket is the path of the socket of a run's sidecar: inside the run's folder where that is short enough, else in a
// folder of its own, named after the run's folder, among the temporary files. It is never longer than 100 bytes.
func Socket(folder runs.Folder) string {
	if inside := filepath.Join(string(folder), "control", "socket"); len(inside) <= longestSocket {
		return inside
	}
	sum := sha256.Sum256([]byte(folder))
	name := filepath.Join("groundplan-"+hex.EncodeToString(sum[:8]), "socket")
	if path := filepath.Join(os.TempDir(), name); len(path) <= longestSocket {
		return path
	}
	return filepath.Join("/tmp", name)
}
