package keeper

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// longestHostname is the longest label of a host's name, in bytes; the kernel's own limit is one more.
const longestHostname = 63

// hostname is an instance's HOSTNAME. One that would be too long is cut and ends in a hash of the whole, so that it
// stays the only one.
func hostname(group string, index int) string {
	whole := group + "-" + strconv.Itoa(index)
	if len(whole) <= longestHostname {
		return whole
	}
	sum := sha256.Sum256([]byte(whole))
	tail := "-" + hex.EncodeToString(sum[:6])
	return whole[:longestHostname-len(tail)] + tail
}

// seedOf derives an instance's own seed from the run's: the same seed gives the same ones.
func seedOf(run uint64, group string, index int) uint64 {
	input := binary.BigEndian.AppendUint64(nil, run)
	input = binary.BigEndian.AppendUint64(input, uint64(index))
	sum := sha256.Sum256(append(input, group...))
	return binary.BigEndian.Uint64(sum[:8])
}
