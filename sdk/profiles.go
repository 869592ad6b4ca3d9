package sdk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"
)

// profiles are being taken while a case runs: `cpu` over all of it, the others (heap, goroutine, mutex, …) each time
// their period is over. They are written to the outputs as <kind>.<number>.prof, the first as number 1.
type profiles struct {
	folder string
	stop   chan struct{}
	work   sync.WaitGroup
	cpu    *os.File // nil when it isn't taken

	mu  sync.Mutex
	err error
}

// takeProfiles starts what is asked for, kind → period. With an error nothing is being taken.
func takeProfiles(folder string, asked map[string]string) (*profiles, error) {
	periods := map[string]time.Duration{}
	for kind, text := range asked {
		if kind == "cpu" {
			continue
		}
		period, err := time.ParseDuration(text)
		switch {
		case pprof.Lookup(kind) == nil:
			return nil, fmt.Errorf("there is no profile of kind %q", kind)
		case err != nil || period <= 0:
			return nil, fmt.Errorf("the profile %s is asked for each %q; it should be a duration like 30s", kind, text)
		}
		periods[kind] = period
	}
	p := &profiles{folder: folder, stop: make(chan struct{})}
	if _, wanted := asked["cpu"]; wanted {
		if err := p.startCPU(); err != nil {
			return nil, err
		}
	}
	for kind, period := range periods {
		p.work.Go(func() { p.repeat(kind, period) })
	}
	return p, nil
}

func (p *profiles) startCPU() (err error) {
	if p.cpu, err = os.Create(filepath.Join(p.folder, "cpu.prof")); err != nil {
		return fmt.Errorf("starting the CPU profile: %w", err)
	}
	if err := pprof.StartCPUProfile(p.cpu); err != nil {
		return errors.Join(fmt.Errorf("starting the CPU profile: %w", err), p.cpu.Close())
	}
	return nil
}

func (p *profiles) repeat(kind string, period time.Duration) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
			p.note(p.take(kind, n))
		case <-p.stop:
			p.note(p.take(kind, n)) // as it is at the end
			return
		}
	}
}

func (p *profiles) take(kind string, n int) error {
	file, err := os.Create(filepath.Join(p.folder, kind+"."+strconv.Itoa(n)+".prof"))
	if err != nil {
		return fmt.Errorf("taking the profile %s: %w", kind, err)
	}
	return errors.Join(pprof.Lookup(kind).WriteTo(file, 0), file.Close())
}

func (p *profiles) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = errors.Join(p.err, err)
}

// end writes what is left to write, and says what went wrong since the start.
func (p *profiles) end() error {
	close(p.stop)
	p.work.Wait()
	if p.cpu != nil {
		pprof.StopCPUProfile()
		p.note(p.cpu.Close())
	}
	return p.err
}
