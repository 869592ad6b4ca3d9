//go:build race

package sidecar

// manyInstances are fewer under the race detector, which makes of each a program several times as big and as slow.
const manyInstances = 200
