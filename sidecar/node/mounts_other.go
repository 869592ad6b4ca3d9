//go:build !linux

package node

// unmountBelow has nothing to do: there are no namespaces to pin.
func unmountBelow(string) error { return nil }
