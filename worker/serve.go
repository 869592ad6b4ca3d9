package worker

import (
	"context"
	"fmt"
)

// Serve runs a worker until the context ends: of the external Temporal, or of the embedded one (`groundplan worker`). It
// ends gracefully: activities under way are handed to the next worker.
func Serve(ctx context.Context, config Config) error {
	return serve(ctx, config, false, func(Info) {})
}

// Dev keeps the embedded services, a worker and the web page up until the context ends, and calls ready once they are.
func Dev(ctx context.Context, config Config, ready func(Info)) error {
	if config.Temporal != "" {
		return fmt.Errorf("`groundplan dev` keeps embedded services up, but Temporal is external (%s); run `groundplan worker` or take that setting away", config.Temporal)
	}
	return serve(ctx, config, true, ready)
}

func serve(ctx context.Context, config Config, dev bool, ready func(Info)) error {
	s, err := open(ctx, config, dev)
	if err != nil {
		return err
	}
	ready(s.Info())
	<-ctx.Done()
	return s.Close()
}
