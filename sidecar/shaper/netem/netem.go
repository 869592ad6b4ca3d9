// Package netem has the kernel shape packets where they are sent, on the data link inside each instance.
//
// For an instance that has anything shaped, the link gets this tree of queueing disciplines:
//
//	tbf 1:              limits nothing: it cuts what TCP and UDP leave to the device to segment into single packets
//	└ htb 2:            packets that no filter names pass at once, ARP and neighbour discovery among them
//	  ├ class 2:lane    one per bucket of bandwidth, and one without a limit
//	  │ └ class 2:leaf  one per path
//	  │   └ netem       delay, jitter, loss, corruption, reordering
//	  │     └ pfifo     what waits for bandwidth; only under lanes with a limit
//	  └ filters         u32, by destination, longest prefix first
//
// Classes are never deleted: packets may still be under way in them. One that nobody uses any more waits, empty before
// long, to be given to another path. Filters are exchanged as a whole, so that every packet is treated by the old state
// or by the new one.
//
// Packets of paths that need user space (see links.Path.UserSpace) pass unshaped: they are led there, and shaped there.
package netem

import "log/slog"

// Options say where to shape.
type Options struct {
	// Inside does work on a thread in the network namespace of an instance, and Link is the index of its data link there.
	Inside func(slot int, work func() error) error
	Link   int
	// Local says whether a slot is on this node; nil: all are.
	Local func(slot int) bool
	// Keep has what is in force already stay so until the first state is, and leaves what is in force when it is closed.
	Keep bool
	// Log says what a person should know; nil: nothing is said.
	Log *slog.Logger
}
