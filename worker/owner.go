package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	sdkworker "go.temporal.io/sdk/worker"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker/embedded"
	"github.com/groundplan/groundplan/workflows"
)

const (
	// Queue is the task queue of the workflows and activities that any machine can carry out.
	Queue = "groundplan"
	// GroundLocal and GroundKubernetes are the values of stage.Run.Ground.
	GroundLocal      = "local"
	GroundKubernetes = "kubernetes"
)

// historyKept is how long Temporal keeps the histories of runs that have ended: as long one can be resumed.
const historyKept = 90 * 24 * time.Hour

// stopTimeout is how long an owner that stops waits for its activities: they return at once when asked to stop.
const stopTimeout = 5 * time.Second

// owned is what an owner runs.
type owned struct {
	session *Session
	lock    *fileLock
	server  *embedded.Server
	ui      *embedded.UI
	workers []sdkworker.Worker
	// gone is closed once all has stopped and the lock was given back.
	gone chan struct{}
}

// own starts the services and the worker. The lock is held; it is given back by stop, or by the caller when own fails.
func own(ctx context.Context, s *Session, lock *fileLock) (*owned, error) {
	o := &owned{session: s, lock: lock, gone: make(chan struct{})}
	if err := o.start(ctx); err != nil {
		return nil, errors.Join(err, o.abandon())
	}
	return o, nil
}

func (o *owned) start(ctx context.Context) error {
	s := o.session
	if !s.external() {
		if err := o.startServices(ctx); err != nil {
			return err
		}
	} else if err := embedded.EnsureAttributes(ctx, s.client.OperatorService(), s.config.Namespace, attributes); err != nil {
		// Somebody else may have the right to; without them no run can start.
		s.log.Warn("could not make sure of the search attributes", "wanted", attributes, "error", err)
	}
	if err := s.recover(ctx); err != nil {
		// Slower, not wrong: what the dead worker had under way is taken up when its heartbeats are missed.
		s.log.Warn("could not take up at once what an earlier worker left", "error", err)
	}
	if err := s.restoreSuites(ctx); err != nil {
		s.log.Warn("could not make sure of the suites' schedules", "error", err)
	}
	if err := o.startWorkers(); err != nil {
		return err
	}
	if s.external() {
		return nil
	}
	return o.announce()
}

func (o *owned) startServices(ctx context.Context) error {
	s := o.session
	if err := removeServices(s.config.Home); err != nil { // of an owner that was killed
		return fmt.Errorf("removing stale addresses: %w", err)
	}
	server, err := embedded.Start(ctx, embedded.Options{
		Folder:     s.databaseFolder(),
		Namespace:  s.config.Namespace,
		Attributes: attributes,
		Retention:  historyKept,
		Token:      s.where.token,
	})
	if err != nil {
		return fmt.Errorf("starting the embedded Temporal (its log is %s): %w", s.ServerLog(), err)
	}
	o.server = server
	s.where.set(server.Address())
	if s.dev {
		o.ui, err = embedded.StartUI(ctx, embedded.UIOptions{
			Temporal: server.Address(), Namespace: s.config.Namespace, Token: s.where.token,
		})
		if err != nil {
			return fmt.Errorf("starting Temporal's web page: %w", err)
		}
	}
	return nil
}

// attributes are the search attributes of workflows/types.go.
var attributes = []string{
	workflows.AttributePipeline, workflows.AttributeVerdict, workflows.AttributeStage,
	workflows.AttributeCommit, workflows.AttributeSuite,
}

// announce tells the other sessions where the services are.
func (o *owned) announce() error {
	s := o.session
	up := services{
		Temporal: o.server.Address(), Namespace: s.config.Namespace, Token: s.where.token,
		PID: os.Getpid(), Started: o.server.Started(),
	}
	if o.ui != nil {
		up.TemporalUI = o.ui.URL()
	}
	if err := writeServices(s.config.Home, up); err != nil {
		return fmt.Errorf("writing the services' addresses: %w", err)
	}
	return nil
}

// startWorkers polls both queues: that of this home on this machine, and the shared one.
func (o *owned) startWorkers() error {
	s := o.session
	register := s.config.Register
	if register == nil {
		register = registerAll
	}
	for _, queue := range []string{s.localQueue(), Queue} {
		w := sdkworker.New(s.client, queue, sdkworker.Options{
			Identity:          identity(s.config.Home),
			WorkerStopTimeout: stopTimeout,
			// Cancellation reaches an activity with the answer to a heartbeat.
			MaxHeartbeatThrottleInterval:     time.Second,
			DefaultHeartbeatThrottleInterval: time.Second,
			// A matrix of many cells must not take the machine: stages are few and heavy.
			MaxConcurrentActivityExecutionSize:      200,
			MaxConcurrentLocalActivityExecutionSize: 200,
			MaxConcurrentWorkflowTaskExecutionSize:  200,
			MaxConcurrentActivityTaskPollers:        4,
			MaxConcurrentWorkflowTaskPollers:        4,
			// A workflow task that a killed worker was to get goes to another one after this.
			StickyScheduleToStartTimeout: time.Second,
			DisableRegistrationAliasing:  true,
		})
		if err := register(s.config, w); err != nil {
			return fmt.Errorf("registering workflows and activities: %w", err)
		}
		if err := w.Start(); err != nil {
			return fmt.Errorf("starting the worker of queue %s: %w", queue, err)
		}
		o.workers = append(o.workers, w)
	}
	return nil
}

// stop ends the worker and makes way for the next owner. The server takes a second to stop, for the sake of load
// balancers that aren't there: that goes on behind, and the lock is given back when it is done or the process has ended.
func (o *owned) stop() error {
	o.stopWorkers()
	if o.server == nil {
		close(o.gone)
		return o.lock.release()
	}
	err := o.withdraw()
	go func() {
		defer close(o.gone)
		if err := errors.Join(o.server.Stop(), o.lock.release()); err != nil {
			o.session.log.Error("stopping the embedded Temporal", "error", err)
		}
	}()
	return err
}

// abandon ends what was started when the rest could not be; the lock stays with the caller.
func (o *owned) abandon() error {
	o.stopWorkers()
	if o.server == nil {
		return nil
	}
	return errors.Join(o.withdraw(), o.server.Stop())
}

func (o *owned) stopWorkers() {
	var all sync.WaitGroup
	for _, w := range o.workers {
		all.Go(w.Stop)
	}
	all.Wait()
}

// withdraw takes back the services' addresses and ends Temporal's web page.
func (o *owned) withdraw() error {
	o.session.where.set("")
	err := removeServices(o.session.config.Home)
	if o.ui != nil {
		err = errors.Join(err, o.ui.Stop())
	}
	return err
}

// localHost names this machine's part of a home, so that two homes on one machine or one home on two have different
// queues: activities read and write their home.
func localHost(home runs.Home) string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	return host + "-" + short(string(home))
}

func (s *Session) localQueue() string { return workflows.QueueFor(localHost(s.config.Home)) }

var processStarted = time.Now()

// identity names this process's worker: `groundplan/<host and home>/<pid>/<start>`.
func identity(home runs.Home) string {
	return identityPrefix(home) + strconv.Itoa(os.Getpid()) + "/" + strconv.FormatInt(processStarted.UnixMilli(), 36)
}

// identityPrefix is what the identities of all workers of this home on this machine begin with. Only the holder of the
// home's lock is one, so that to a holder all others are known dead.
func identityPrefix(home runs.Home) string {
	return "groundplan/" + strings.ReplaceAll(localHost(home), "/", "-") + "/"
}

// short is a short name for a long text.
func short(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}
