package control

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// longestHostname is the longest label of a host's name, in bytes; the kernel's own limit is one more.
const longestHostname = 63

// Hostname is an instance's HOSTNAME, by which its plan configures its network (network:<hostname>), and the name of its
// host: the same wherever it is. One that would be too long is cut and ends in a hash of the whole, so that it stays
// the only one.
func Hostname(group string, index int) string {
	whole := group + "-" + strconv.Itoa(index)
	if len(whole) <= longestHostname {
		return whole
	}
	sum := sha256.Sum256([]byte(whole))
	tail := "-" + hex.EncodeToString(sum[:6])
	return whole[:longestHostname-len(tail)] + tail
}
