package links

import "net/netip"

// State is what is asked of every link, layers laid over each other. It doesn't change once made.
type State struct{}

// New lays the layers over each other. The error is a sentence about what can't be done, for a person.
func New(seats Seats, layers Layers) (*State, error) { panic("being written") }

// Path is what is asked of packets from a slot to an address. The zero value stands for a slot or address that nobody has.
func (s *State) Path(slot int, to netip.Addr) Path { panic("being written") }

// Routes are all that is asked of a slot's packets, in the order of their prefixes, longest first. Slots that share
// all they are asked share the slice: compare the address of its first element to know.
func (s *State) Routes(slot int) []Route { panic("being written") }

// Slot says who has an address now.
func (s *State) Slot(address netip.Addr) (int, bool) { panic("being written") }

// Seats are those that the state was made for.
func (s *State) Seats() Seats { panic("being written") }

// Inbound is what becomes of new connections.
func (s *State) Inbound() Inbound { panic("being written") }

// Routers are the NATs.
func (s *State) Routers() []Router { panic("being written") }
