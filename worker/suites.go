package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

var (
	// ErrNoSuite is wrapped when no suite has that name.
	ErrNoSuite = errors.New("no such suite")
	// ErrSuiteBusy is wrapped when a turn is under way and the suite's `overlap` has no other one begin.
	ErrSuiteBusy = errors.New("a turn of the suite is under way")
	// ErrNoTurn is wrapped when no turn of a suite is under way.
	ErrNoTurn = errors.New("no turn of the suite is under way")
)

// longestSuite is how long a suite's name may be: behind it, the id of a cell's run has the turn, the pipeline's number
// and the cell's, and may have 63 characters.
const longestSuite = 36

// mostBackfills is how many of the times that were asked for are kept with a suite, to tell its turns apart by.
const mostBackfills = 20

// SuiteStatus is where a suite stands.
type SuiteStatus struct {
	Name      string                  `json:"name"`
	File      string                  `json:"file,omitempty"`
	Ground    string                  `json:"ground"`
	Schedule  pipelines.SuiteSchedule `json:"schedule,omitzero"`
	Pipelines []string                `json:"pipelines"`
	// Host names the machine and home that its turns are carried out on, and Here says whether that is this one.
	Host   string `json:"host"`
	Here   bool   `json:"here"`
	Paused bool   `json:"paused"`
	Note   string `json:"note,omitempty"`
	// Next is when the next turn begins by the schedule; zero where none will.
	Next time.Time `json:"next,omitzero"`
	// UnderWay are the ids of Temporal's workflows that carry its turns through; see Session.Turn.
	UnderWay []string `json:"underWay,omitempty"`
	// Missed is how many turns were due while nothing was up, for longer than catching up goes; Overlapped how many were
	// due while another one was under way, and did not begin for it.
	Missed     int `json:"missed,omitempty"`
	Overlapped int `json:"overlapped,omitempty"`
	// Last is the newest turn that this home knows.
	Last *runs.SuiteTurn `json:"last,omitempty"`
}

// SuiteChange is what creating a suite did.
type SuiteChange struct {
	Name string `json:"name"`
	// Created says that there was none of that name.
	Created bool `json:"created"`
	// Changes are what is different from the suite as it was created before, one line each.
	Changes []string    `json:"changes"`
	Status  SuiteStatus `json:"status"`
}

// CreateSuite makes a suite's schedule, or brings the one that is there up to date. s.Created and s.Changed are set here.
// A suite that is there stays paused; paused pauses it.
func (s *Session) CreateSuite(ctx context.Context, suite runs.Suite) (SuiteChange, error) {
	change := SuiteChange{Name: suite.Suite.Name, Changes: []string{}}
	if err := checkSuite(suite); err != nil {
		return change, err
	}
	input := s.suiteInput(suite)
	known, err := s.readSchedule(ctx, suite.Suite.Name)
	switch {
	case errors.Is(err, ErrNoSuite):
		change.Created = true
		suite.Created = time.Now().UTC()
		err = s.makeSchedule(ctx, suite, input)
	case err == nil:
		change.Changes = append(change.Changes, differences(known.input, input)...)
		if suite.Paused && !known.status.Paused {
			change.Changes = append(change.Changes, "paused")
		}
		suite.Paused, suite.Note = suite.Paused || known.status.Paused, orElse(suite.Note, known.status.Note)
		input.Backfills = known.input.Backfills
		suite.Created = known.created
		suite.Changed = time.Now().UTC()
		err = s.changeSchedule(ctx, suite.Suite.Name, func(schedule *client.Schedule) {
			s.shape(schedule, suite, input)
		})
	}
	if err != nil {
		return change, fmt.Errorf("creating the suite %s: %w", suite.Suite.Name, err)
	}
	if err := s.config.Home.WriteSuite(suite); err != nil {
		return change, fmt.Errorf("the suite %s is scheduled, but could not be kept here: %w", suite.Suite.Name, err)
	}
	now, err := s.settled(ctx, suite.Suite.Name, input)
	change.Status = now.status
	return change, err
}

func checkSuite(suite runs.Suite) error {
	name := suite.Suite.Name
	if err := runs.CheckSuite(name); err != nil {
		return err
	}
	if len(name) > longestSuite {
		return fmt.Errorf("the suite's name %s has %d characters: the ids of its runs, which begin with it, leave room for %d", name, len(name), longestSuite)
	}
	if _, known := overlaps[orElse(suite.Suite.Schedule.Overlap, overlapSkip)]; !known {
		return fmt.Errorf("the suite %s has the unknown overlap %q", name, suite.Suite.Schedule.Overlap)
	}
	return nil
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// suiteInput is what the turns of a suite that is created here are started with.
func (s *Session) suiteInput(suite runs.Suite) workflows.SuiteInput {
	return workflows.SuiteInput{
		Suite: suite.Suite, Ground: suite.Ground, Root: suite.Root, Context: suite.Context, Namespace: suite.Namespace,
		Host: localHost(s.config.Home), Queue: s.localQueue(),
	}
}

// overlapSkip is what happens where a suite doesn't say.
const overlapSkip = "skip"

var overlaps = map[string]enumspb.ScheduleOverlapPolicy{
	overlapSkip:       enumspb.SCHEDULE_OVERLAP_POLICY_SKIP,
	"buffer-one":      enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE,
	"buffer-all":      enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ALL,
	"cancel-other":    enumspb.SCHEDULE_OVERLAP_POLICY_CANCEL_OTHER,
	"terminate-other": enumspb.SCHEDULE_OVERLAP_POLICY_TERMINATE_OTHER,
	"allow-all":       enumspb.SCHEDULE_OVERLAP_POLICY_ALLOW_ALL,
}

// Overlaps are the words for what happens when a turn is to begin while another one is under way.
func Overlaps() []string {
	return []string{overlapSkip, "buffer-one", "buffer-all", "cancel-other", "terminate-other", "allow-all"}
}

// shape makes a schedule that of a suite.
func (s *Session) shape(schedule *client.Schedule, suite runs.Suite, input workflows.SuiteInput) {
	when := suite.Suite.Schedule
	schedule.Spec = &client.ScheduleSpec{TimeZoneName: orElse(when.Timezone, "UTC"), Jitter: time.Duration(when.Jitter)}
	if when.Cron != "" {
		schedule.Spec.CronExpressions = []string{when.Cron}
	}
	schedule.Policy = &client.SchedulePolicies{
		Overlap: overlaps[orElse(when.Overlap, overlapSkip)], CatchupWindow: time.Duration(when.CatchUp),
	}
	if schedule.Policy.CatchupWindow <= 0 {
		schedule.Policy.CatchupWindow = time.Minute // Temporal's own is a year
	}
	queue := Queue
	if s.Embedded() {
		queue = input.Queue
	}
	schedule.Action = &client.ScheduleWorkflowAction{
		ID: workflows.SuitePrefix + suite.Suite.Name, Workflow: workflows.WorkflowSuite, Args: []any{input}, TaskQueue: queue,
		WorkflowTaskTimeout:   5 * time.Second, // as of a run
		TypedSearchAttributes: suiteAttributes(suite.Suite.Name),
	}
	schedule.State = &client.ScheduleState{Paused: suite.Paused, Note: suite.Note}
}

func suiteAttributes(name string) temporal.SearchAttributes {
	return temporal.NewSearchAttributes(keyword(workflows.AttributeSuite).ValueSet(name))
}

func (s *Session) makeSchedule(ctx context.Context, suite runs.Suite, input workflows.SuiteInput) error {
	var schedule client.Schedule
	s.shape(&schedule, suite, input)
	return retry(ctx, func() error {
		_, err := s.client.ScheduleClient().Create(ctx, client.ScheduleOptions{
			ID: workflows.SuitePrefix + suite.Suite.Name, Spec: *schedule.Spec, Action: schedule.Action,
			Overlap: schedule.Policy.Overlap, CatchupWindow: schedule.Policy.CatchupWindow,
			Paused: suite.Paused, Note: suite.Note, TypedSearchAttributes: suiteAttributes(suite.Suite.Name),
		})
		if errors.Is(err, temporal.ErrScheduleAlreadyRunning) { // an earlier try made it
			return nil
		}
		return err
	})
}

func (s *Session) schedule(name string) client.ScheduleHandle {
	return s.client.ScheduleClient().GetHandle(context.Background(), workflows.SuitePrefix+name)
}

// changeSchedule changes a suite's schedule as it stands.
func (s *Session) changeSchedule(ctx context.Context, name string, change func(*client.Schedule)) error {
	return s.suiteError(name, retry(ctx, func() error {
		return s.schedule(name).Update(ctx, client.ScheduleUpdateOptions{
			DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
				schedule := in.Description.Schedule
				change(&schedule)
				return &client.ScheduleUpdate{Schedule: &schedule}, nil
			},
		})
	}))
}

// suiteError turns Temporal's word for an unknown schedule into ErrNoSuite.
func (s *Session) suiteError(name string, err error) error {
	var missing *serviceerror.NotFound
	if errors.As(err, &missing) {
		return fmt.Errorf("%w: %s; `groundplan suite list` shows those there are, `groundplan suite create FILE` makes one", ErrNoSuite, name)
	}
	return err
}

// known is a suite as Temporal has it.
type knownSuite struct {
	input       workflows.SuiteInput
	status      SuiteStatus
	created     time.Time
	description *client.ScheduleDescription
	underWay    []*commonpb.WorkflowExecution
}

// readSchedule asks Temporal about a suite; ErrNoSuite when it has none of that name.
func (s *Session) readSchedule(ctx context.Context, name string) (knownSuite, error) {
	var k knownSuite
	err := retry(ctx, func() (err error) {
		k.description, err = s.schedule(name).Describe(ctx)
		return err
	})
	if err != nil {
		return k, s.suiteError(name, err)
	}
	if k.input, err = inputOf(k.description.Schedule.Action); err != nil {
		return k, fmt.Errorf("the suite %s: %w", name, err)
	}
	k.created = k.description.Info.CreatedAt.UTC()
	if k.underWay, err = s.turnsUnderWay(ctx, name, k.description.Info.RunningWorkflows); err != nil {
		return k, err
	}
	if err := s.mendTurns(ctx, name, k.underWay); err != nil {
		s.log.Warn("could not find out what became of a suite's turns", "suite", name, "error", err)
	}
	k.status = s.statusOf(name, k)
	return k, nil
}

// inputOf is what a schedule's turns are started with.
func inputOf(action client.ScheduleAction) (workflows.SuiteInput, error) {
	var in workflows.SuiteInput
	a, ok := action.(*client.ScheduleWorkflowAction)
	if !ok || len(a.Args) != 1 {
		return in, errors.New("its schedule is none of a suite's")
	}
	payload, ok := a.Args[0].(*commonpb.Payload)
	if !ok {
		return in, errors.New("its schedule can't be read")
	}
	if err := converter.GetDefaultDataConverter().FromPayload(payload, &in); err != nil {
		return in, fmt.Errorf("reading its schedule: %w", err)
	}
	return in, nil
}

func (s *Session) statusOf(name string, k knownSuite) SuiteStatus {
	in, info := k.input, k.description.Info
	status := SuiteStatus{
		Name: name, File: in.Suite.File, Ground: in.Ground, Schedule: in.Suite.Schedule, Pipelines: []string{},
		Host: in.Host, Here: in.Queue == s.localQueue(),
		Paused: k.description.Schedule.State.Paused, Note: k.description.Schedule.State.Note,
		Missed: info.NumActionsMissedCatchupWindow, Overlapped: info.NumActionsSkippedOverlap,
	}
	for _, p := range in.Suite.Pipelines {
		status.Pipelines = append(status.Pipelines, p.File)
	}
	if len(info.NextActionTimes) > 0 && !status.Paused {
		status.Next = info.NextActionTimes[0].UTC()
	}
	for _, e := range k.underWay {
		status.UnderWay = append(status.UnderWay, e.GetWorkflowId())
	}
	if turns, _ := s.config.Home.ReadSuiteTurns(name); len(turns) > 0 { // its error names turns that can't be read
		status.Last = &turns[0]
	}
	return status
}

// settled is a suite once its schedule, which takes changes up a moment later, is as it was asked to be.
func (s *Session) settled(ctx context.Context, name string, input workflows.SuiteInput) (knownSuite, error) {
	for deadline := time.Now().Add(2 * time.Second); ; {
		k, err := s.readSchedule(ctx, name)
		late := time.Now().After(deadline)
		waits := input.Suite.Schedule.Cron != "" && !k.status.Paused && k.status.Next.IsZero()
		if err != nil || late || !waits && len(differences(k.input, input)) == 0 {
			return k, err
		}
		if err := sleep(ctx, pause); err != nil {
			return k, err
		}
	}
}

// Suites are all suites that Temporal knows, in the order of their names.
func (s *Session) Suites(ctx context.Context) ([]SuiteStatus, error) {
	names := map[string]bool{}
	err := retry(ctx, func() error {
		list, err := s.client.ScheduleClient().List(ctx, client.ScheduleListOptions{PageSize: 500})
		if err != nil {
			return err
		}
		for list.HasNext() {
			entry, err := list.Next()
			if err != nil {
				return err
			}
			if name, is := strings.CutPrefix(entry.ID, workflows.SuitePrefix); is {
				names[name] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the suites: %w", err)
	}
	here, err := s.config.Home.SuiteNames() // the list comes a moment late: what was created here is known
	if err != nil {
		return nil, err
	}
	for _, name := range here {
		if _, err := s.config.Home.ReadSuite(name); err == nil {
			names[name] = true
		}
	}
	all := []SuiteStatus{}
	for name := range names {
		k, err := s.readSchedule(ctx, name)
		if errors.Is(err, ErrNoSuite) { // deleted meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, k.status)
	}
	slices.SortFunc(all, func(a, b SuiteStatus) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Suite is where one suite stands; ErrNoSuite when there is none of that name.
func (s *Session) Suite(ctx context.Context, name string) (SuiteStatus, error) {
	k, err := s.readSchedule(ctx, name)
	return k.status, err
}
