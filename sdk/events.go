package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// event is what an instance tells about itself: one of these.
type event struct {
	Start      *startEvent   `json:"start_event,omitempty"`
	Message    *messageEvent `json:"message_event,omitempty"`
	Success    *groupEvent   `json:"success_event,omitempty"`
	Failure    *failureEvent `json:"failure_event,omitempty"`
	Crash      *crashEvent   `json:"crash_event,omitempty"`
	StageStart *stageEvent   `json:"stage_start_event,omitempty"`
	StageEnd   *stageEvent   `json:"stage_end_event,omitempty"`
}

type startEvent struct {
	Runenv startedWith `json:"runenv"`
}

// startedWith is the environment as Testground writes it.
type startedWith struct {
	Plan           string            `json:"plan"`
	Case           string            `json:"case"`
	Run            string            `json:"run"`
	Outputs        string            `json:"outputs_path"`
	Temp           string            `json:"temp_path"`
	Instances      int               `json:"instances"`
	Role           string            `json:"role,omitempty"`
	Params         map[string]string `json:"params"`
	Group          string            `json:"group"`
	GroupInstances int               `json:"group_instances"`
	Network        string            `json:"network"`
}

type messageEvent struct {
	Message string `json:"message"`
}

type groupEvent struct {
	Group string `json:"group"`
}

type failureEvent struct {
	Group string `json:"group"`
	Error string `json:"error"`
}

type crashEvent struct {
	Group string `json:"group"`
	Error string `json:"error"`
	Stack string `json:"stacktrace"`
}

type stageEvent struct {
	Name  string `json:"name"`
	Group string `json:"group"`
}

func (e *Environment) startEvent() event {
	network := ""
	if e.Subnet.IsValid() {
		network = e.Subnet.String()
	}
	return event{Start: &startEvent{startedWith{
		Plan: e.Plan, Case: e.Case, Run: e.ID, Outputs: e.Outputs, Temp: e.Temp, Instances: e.Instances, Role: e.Role,
		Params: e.Params, Group: e.Group, GroupInstances: e.GroupInstances, Network: network,
	}}}
}

// journal writes events, a line each, to the standard output and to run.out.
type journal struct {
	env    *Environment
	mu     sync.Mutex
	stdout io.Writer
	file   *os.File
}

func openJournal(env *Environment, stdout io.Writer) (*journal, error) {
	file, err := appendTo(env.Outputs, "run.out")
	if err != nil {
		return nil, err
	}
	return &journal{env: env, stdout: stdout, file: file}, nil
}

// appendTo opens one of the outputs. What an earlier stage wrote there stays.
func appendTo(folder, name string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(folder, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening an output: %w", err)
	}
	return file, nil
}

func (j *journal) write(e event) error {
	line, err := json.Marshal(struct {
		Time    int64  `json:"ts"`
		Message string `json:"msg"`
		Group   string `json:"group_id"`
		Run     string `json:"run_id"`
		Event   event  `json:"event"`
	}{time.Now().UnixNano(), "", j.env.Group, j.env.ID, e})
	if err != nil {
		return fmt.Errorf("encoding an event: %w", err)
	}
	line = append(line, '\n')
	j.mu.Lock()
	defer j.mu.Unlock()
	_, toStdout := j.stdout.Write(line)
	_, toFile := j.file.Write(line)
	return errors.Join(toStdout, toFile)
}

func (j *journal) close() error { return j.file.Close() }

// Message writes a line to the instance's log, formatted as by fmt.Sprintf.
func (r *Run) Message(format string, args ...any) {
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	r.note(event{Message: &messageEvent{format}})
}

// note writes an event; a log that can't be written is said on the standard error, once it is known.
func (r *Run) note(e event) {
	if err := r.journal.write(e); err != nil {
		fmt.Fprintln(os.Stderr, "groundplan:", err)
	}
}

// tell has the sync service pass an event on to who watches the run.
func (r *Run) tell(ctx context.Context, e event) error {
	payload, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = r.publish(ctx, r.key("run_events"), "run_events", payload)
	return err
}
