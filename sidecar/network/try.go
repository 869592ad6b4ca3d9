package network

import "time"

// Trial says what a machine does to data networks, for this user.
type Trial struct {
	// Netem and UserSpace say why networks can't be shaped by that; empty where they can.
	Netem     string `json:"netem"`
	UserSpace string `json:"userSpace"`
	// Asked is the latency that a link was given in user space, and Achieved what it was found to have.
	Asked    time.Duration `json:"asked"`
	Achieved time.Duration `json:"achieved"`
}
