package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/groundplan/groundplan/activities/notify"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// Message is what a webhook is told of a turn: the body of the call. Fields are added, never renamed; Version grows when
// one has to go.
type Message struct {
	Type    string `json:"type"`
	Version int    `json:"version"`
	// Timestamp is when the turn ended.
	Timestamp time.Time   `json:"timestamp"`
	Data      MessageTurn `json:"data"`
}

// MessageTurn is the turn as a webhook sees it.
type MessageTurn struct {
	Suite   string          `json:"suite"`
	Turn    string          `json:"turn"`
	Verdict stage.Verdict   `json:"verdict"`
	Reason  string          `json:"reason"`
	News    []string        `json:"news"`
	Trigger string          `json:"trigger"`
	Due     time.Time       `json:"due,omitzero"`
	Started time.Time       `json:"started"`
	Ended   time.Time       `json:"ended"`
	Ground  string          `json:"ground"`
	Commit  string          `json:"commit,omitempty"`
	File    string          `json:"file,omitempty"`
	Runs    []runs.SuiteRun `json:"runs"`
	// HowToRead are commands that show more, to be typed on Host with Home as GROUNDPLAN_HOME.
	HowToRead []string `json:"howToRead"`
	Host      string   `json:"host"`
	Home      string   `json:"home"`
}

const (
	messageType    = "suite.turn.ended"
	messageVersion = 1
	// notYet begins what the record says while the call is tried again.
	notYet = "not told yet"
)

// Tell calls the webhook once, and says in the turn's record what became of it. An error that may pass is tried again by
// Temporal, with the same id and the same body.
func (s *Suites) Tell(ctx context.Context, in stage.SuiteTell) error {
	turn, err := s.Home.ReadSuiteTurn(in.Suite, in.Turn)
	if err != nil {
		return fmt.Errorf("reading what to tell: %w", err)
	}
	try := int32(1)
	if activity.IsActivity(ctx) {
		try = activity.GetInfo(ctx).Attempt
	}
	status, err := s.call(ctx, in.Notify, turn)
	turn.Notified = became(status, try, err)
	if fault := s.Home.WriteSuiteTurn(turn); fault != nil && err == nil {
		// Not an error: the call would be made again for it.
		activity.GetLogger(ctx).Warn("the turn's record doesn't say that the webhook was called", "suite", in.Suite, "turn", in.Turn, "error", fault)
	}
	return failure(err)
}

// call makes the message and sends it.
func (s *Suites) call(ctx context.Context, to notifyOf, turn runs.SuiteTurn) (string, error) {
	secrets, err := s.Secrets.Read()
	if err != nil {
		return "", err
	}
	url, err := to.URL(secrets)
	if err != nil {
		return "", err
	}
	key, err := to.Key(secrets)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(message(s.Home, turn))
	if err != nil {
		return "", fmt.Errorf("making the message: %w", err)
	}
	caller := s.Caller
	if caller == nil {
		caller = notify.NewCaller()
	}
	return caller.Call(ctx, notify.Message{URL: url, Key: key, ID: "msg_" + turn.Execution, Body: body})
}

// notifyOf is where to tell, with what secrets; a pipelines.Notify.
type notifyOf interface {
	URL(secret func(name string) (string, bool)) (string, error)
	Key(secret func(name string) (string, bool)) (string, error)
}

// hostName is where the suite's history is; empty where the machine has no name.
func hostName() string {
	name, _ := os.Hostname()
	return name
}

func message(home runs.Home, turn runs.SuiteTurn) Message {
	m := Message{Type: messageType, Version: messageVersion, Timestamp: turn.Ended, Data: MessageTurn{
		Suite: turn.Suite, Turn: turn.ID, Verdict: turn.Verdict, Reason: turn.Reason, News: turn.News,
		Trigger: turn.Trigger, Due: turn.Due, Started: turn.Started, Ended: turn.Ended,
		Ground: turn.Ground, Commit: turn.Commit, File: turn.File, Runs: turn.Runs,
		HowToRead: []string{"groundplan suite show " + turn.Suite}, Host: hostName(), Home: string(home),
	}}
	for _, r := range turn.Runs {
		if r.Run != "" && r.Verdict != stage.Passed {
			m.Data.HowToRead = append(m.Data.HowToRead, "groundplan report "+r.Run)
		}
	}
	return m
}

// became is what the record says about a call.
func became(status string, try int32, err error) string {
	var call *notify.CallError
	tries := ""
	if try > 1 {
		tries = fmt.Sprintf(" (try %d)", try)
	}
	switch {
	case err == nil:
		return fmt.Sprintf("told at %s%s: %s", time.Now().UTC().Format(time.RFC3339), tries, status)
	case errors.As(err, &call) && call.Final:
		return "not told" + tries + ": " + err.Error()
	}
	return notYet + tries + ": " + err.Error() + "; it is tried again for a day"
}

// failure tells Temporal whether and when to try again.
func failure(err error) error {
	var call *notify.CallError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &call) && call.Final:
		return temporal.NewNonRetryableApplicationError(err.Error(), "WebhookRefused", nil)
	case errors.As(err, &call) && call.After > 0:
		return temporal.NewApplicationErrorWithOptions(err.Error(), "WebhookBusy", temporal.ApplicationErrorOptions{NextRetryDelay: call.After})
	}
	return err
}

// Told notes that nobody could be told, where the last call has not said so itself.
func (s *Suites) Told(_ context.Context, in stage.SuiteTold) error {
	turn, err := s.Home.ReadSuiteTurn(in.Suite, in.Turn)
	if err != nil {
		return fmt.Errorf("noting that nobody could be told: %w", err)
	}
	if turn.Notified != "" && !strings.HasPrefix(turn.Notified, notYet) {
		return nil
	}
	turn.Notified = in.Text
	return s.Home.WriteSuiteTurn(turn)
}
