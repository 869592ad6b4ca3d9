//go:build !linux

package worker

func kernel() string { return "" }
