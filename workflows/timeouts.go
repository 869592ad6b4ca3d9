package workflows

import (
	"math"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// How long one attempt of a stage may take when its `timeout` doesn't say.
const (
	DefaultBuildTimeout    = 30 * time.Minute
	DefaultScheduleTimeout = 15 * time.Minute
	DefaultNetworkTimeout  = 10 * time.Minute
	DefaultRunTimeout      = time.Hour
	DefaultCollectTimeout  = 30 * time.Minute
)

// Bounds that a pipeline doesn't set.
const (
	// DefaultHeartbeatTimeout is how long a silent stage activity counts as alive.
	DefaultHeartbeatTimeout = 10 * time.Second
	// DefaultHoldFor is how long a held run waits for a decision before it aborts.
	DefaultHoldFor = 4 * time.Hour
	// Grace is what an activity gets beyond its Deadline to say how the stage ended; a second look gets it again.
	Grace = 30 * time.Second
	// Outage is how long halt, release, record and a second look wait for a worker. Without one nothing could go on
	// anyway, so that waiting costs nothing.
	Outage = 24 * time.Hour

	// DefaultRetryInitial, DefaultRetryFactor and DefaultRetryMax shape the back-off of a `retry` that only counts.
	DefaultRetryInitial = 5 * time.Second
	DefaultRetryFactor  = 2.0
	DefaultRetryMax     = time.Minute
)

// Of one try of halt, release or record, and of evaluating a `when`.
const (
	haltTimeout     = time.Minute
	releaseTimeout  = 2 * time.Minute
	recordTimeout   = 20 * time.Second
	resolveTimeout  = 30 * time.Second
	evaluateTimeout = 10 * time.Second
)

// housekeepingTries is how often halt, release, record, resolve and a second look are tried: a killed worker costs one,
// as an error does.
const housekeepingTries = 8

// timeoutOf is how long one attempt of a stage may take.
func timeoutOf(s pipelines.Stage) time.Duration {
	if s.Timeout > 0 {
		return time.Duration(s.Timeout)
	}
	switch s.Kind {
	case pipelines.KindBuild:
		return DefaultBuildTimeout
	case pipelines.KindSchedule:
		return DefaultScheduleTimeout
	case pipelines.KindNetwork:
		return DefaultNetworkTimeout
	case pipelines.KindCollect:
		return DefaultCollectTimeout
	default:
		return DefaultRunTimeout
	}
}

// errorRetry tries an activity again that couldn't answer: its worker was killed, a connection refused. A panic would
// happen again, and time that is used up is not given twice.
func errorRetry(attempts int32) *temporal.RetryPolicy {
	return &temporal.RetryPolicy{
		InitialInterval:        300 * time.Millisecond,
		BackoffCoefficient:     1.6,
		MaximumInterval:        5 * time.Second,
		MaximumAttempts:        attempts,
		NonRetryableErrorTypes: []string{"PanicError", "TemporalTimeout:StartToClose"},
	}
}

// stageOptions are for one attempt of a stage: errors are retried for as long as the attempt may take.
func stageOptions(in Input, timeout time.Duration) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		TaskQueue:              in.Queue,
		StartToCloseTimeout:    timeout + Grace,
		ScheduleToCloseTimeout: timeout + Grace,
		HeartbeatTimeout:       heartbeatTimeout(in),
		WaitForCancellation:    true,
		RetryPolicy:            errorRetry(0),
	}
}

// lookOptions are for asking once more after an attempt's time was used up.
func lookOptions(in Input) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		TaskQueue:              in.Queue,
		StartToCloseTimeout:    Grace,
		ScheduleToCloseTimeout: Outage,
		HeartbeatTimeout:       heartbeatTimeout(in),
		WaitForCancellation:    true,
		RetryPolicy:            errorRetry(housekeepingTries),
	}
}

// housekeeping is for halt, release, record and resolve: short, and tried a bounded number of times, so that a run ends.
// Those that heartbeat say so by a heartbeat timeout above 0.
func housekeeping(queue string, try, heartbeat time.Duration) workflow.ActivityOptions {
	retry := errorRetry(housekeepingTries)
	retry.NonRetryableErrorTypes = []string{"PanicError"}
	return workflow.ActivityOptions{
		HeartbeatTimeout:       heartbeat,
		TaskQueue:              queue,
		StartToCloseTimeout:    try,
		ScheduleToCloseTimeout: Outage,
		RetryPolicy:            retry,
	}
}

func heartbeatTimeout(in Input) time.Duration {
	if in.HeartbeatTimeout > 0 {
		return in.HeartbeatTimeout
	}
	return DefaultHeartbeatTimeout
}

// retried says whether a verdict is tried again: what is invalid always, what failed only when `on` lists it.
func retried(r pipelines.Retry, v stage.Verdict) bool {
	return v == stage.Invalid || v == stage.Failed && slices.Contains(r.On, string(stage.Failed))
}

// backoff is how long to wait after the given try (from 1), growing by the factor up to the maximum.
func backoff(r pipelines.Retry, try int) time.Duration {
	initial, factor, most := time.Duration(r.Initial), r.Factor, time.Duration(r.Max)
	if initial <= 0 {
		initial = DefaultRetryInitial
	}
	if factor < 1 {
		factor = DefaultRetryFactor
	}
	if most <= 0 {
		most = max(DefaultRetryMax, initial)
	}
	grown := float64(initial) * math.Pow(factor, float64(try-1))
	if grown >= float64(most) {
		return most
	}
	return time.Duration(grown)
}
