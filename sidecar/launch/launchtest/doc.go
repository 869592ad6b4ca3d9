// Package launchtest is for tests whose work needs namespaces of its own. Such a test runs twice: once outside, where it
// does nothing but start its program again as a sidecar, as root and as an unprivileged user, and once in there, where it
// does its work.
package launchtest
