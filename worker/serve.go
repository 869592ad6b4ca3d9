package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Serve runs a worker until the context ends: of the external Temporal, or of the embedded one (`groundplan worker`). It
// ends gracefully: activities under way are handed to the next worker.
func Serve(ctx context.Context, config Config) error {
	return serve(ctx, config, false, untilEnd)
}

// Dev keeps the embedded services, a worker and Temporal's web page up as long as beside takes, which is called once they
// are up; it has to return when its context ends.
func Dev(ctx context.Context, config Config, beside func(context.Context, *Session) error) error {
	if config.Temporal != "" {
		return fmt.Errorf("`groundplan dev` keeps embedded services up, but Temporal is external (%s); run `groundplan worker` or take that setting away", config.Temporal)
	}
	return serve(ctx, config, true, beside)
}

func untilEnd(ctx context.Context, _ *Session) error {
	<-ctx.Done()
	return nil
}

func serve(ctx context.Context, config Config, dev bool, beside func(context.Context, *Session) error) error {
	s, err := open(ctx, config, dev)
	if err != nil {
		return err
	}
	retaining, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { s.retainDaily(retaining) })
	err = beside(ctx, s)
	cancel()
	work.Wait()
	return errors.Join(err, s.Close())
}
