//go:build !race

package sidecar

const manyInstances = 1000
