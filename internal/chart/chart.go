// Package chart holds the tests of charts/groundplan. They take Helm, which `go tool task chart:lint` builds.
package chart
