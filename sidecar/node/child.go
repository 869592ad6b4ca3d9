package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// Sidecar is what the agent tells a run's sidecar when it starts it. It goes by a pipe: it holds a password, and everybody
// on the machine can read arguments.
type Sidecar struct {
	// Folder is the run's in the agent's state folder.
	Folder string `json:"folder"`
	Seed   uint64 `json:"seed"`
	// Redis is the URL of the Redis that all nodes share.
	Redis string `json:"redis"`
	// Node and Address are the node's name and the address at which other nodes reach it; Kubelet is the kubelet's root
	// folder.
	Node    string     `json:"node"`
	Address netip.Addr `json:"address"`
	Kubelet string     `json:"kubelet"`
	// IdleLimit is how long the run stays when nobody calls; 0: what the sidecar has by itself.
	IdleLimit time.Duration `json:"idleLimit,omitempty"`
}

// Attend reads from a sidecar's stdin what the agent has to say. The context that it returns ends when the agent has
// ended, by whatever cause: stdin stays open as long as the agent lives.
func Attend(ctx context.Context, stdin io.Reader) (context.Context, Sidecar, error) {
	var s Sidecar
	if err := json.NewDecoder(stdin).Decode(&s); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("nothing came; an agent has to start it")
		}
		return nil, s, fmt.Errorf("reading from stdin what this sidecar is for: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, stdin)
	}()
	return ctx, s, nil
}
