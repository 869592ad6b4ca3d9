package kubernetes

import (
	"context"
	"errors"
	"fmt"

	"github.com/groundplan/groundplan/activities/stage"
)

// Examine looks at the cluster of the options as a run would before it places anything, and changes nothing. It returns a
// sentence about the cluster; an error says what keeps runs from it, and what to do.
func (g *Ground) Examine(ctx context.Context) (string, error) {
	c, err := g.cluster(stage.Run{})
	if err != nil {
		return "", err
	}
	version, err := c.client.Discovery().ServerVersion()
	if err != nil {
		return "", fmt.Errorf("%s does not answer: %w", c.name, err)
	}
	why, err := c.forbidden(ctx, g.options.Dial != nil)
	if err == nil && why != "" {
		err = errors.New(why)
	}
	if err != nil {
		return "", err
	}
	s := &session{ground: g, cluster: c, reach: newReach(c, g.options), nodes: map[string]*node{}}
	defer s.close()
	if err := s.connect(ctx); err != nil {
		return "", err
	}
	site, err := s.survey(ctx)
	if err != nil {
		return "", err
	}
	if why := site.nowhere(c, g.options.NodeSelector); why != "" {
		return "", errors.New(why)
	}
	room := int64(0)
	for _, r := range site.rooms {
		room += max(r.pods, 0)
	}
	// One agent speaks for the way to all of them.
	if len(site.rooms) > 0 {
		if _, err := s.node(site.rooms[0].node).agent.Node(ctx); err != nil {
			return "", fmt.Errorf("the sidecar on node %s can't be reached: %w", site.rooms[0].node, err)
		}
	}
	return fmt.Sprintf("%s (%s): %s with room for %d more pods, and a sidecar on each", c.name, version.GitVersion, nodesText(len(site.rooms)), room), nil
}
