package keeper

import (
	"crypto/sha256"
	"encoding/binary"
)

// seedOf derives an instance's own seed from the run's: the same seed gives the same ones.
func seedOf(run uint64, group string, index int) uint64 {
	input := binary.BigEndian.AppendUint64(nil, run)
	input = binary.BigEndian.AppendUint64(input, uint64(index))
	sum := sha256.Sum256(append(input, group...))
	return binary.BigEndian.Uint64(sum[:8])
}
