// Package fabrictest is a cluster of nodes for tests of what works over several: network namespaces that are joined by a
// bridge, and pods that are plain ones. A test has to be root of its namespaces, see launchtest.
package fabrictest
