package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/groundplan/groundplan/worker"
)

// servicesLog is the file in the home that services in the background write what they have to say into.
const servicesLog = "background.log"

// detach starts a run on services that outlive this process and leaves.
func (a *app) detach(ctx context.Context, config worker.Config, start worker.StartOptions, form string) (err error) {
	if form == "junit" {
		return usage(fmt.Errorf("--detach has no verdict to write as junit: choose --output text or json"))
	}
	session, err := a.find(ctx, config)
	if err != nil {
		return err
	}
	if session == nil {
		if err := a.background(ctx, config); err != nil {
			return fmt.Errorf("starting services in the background: %w", err)
		}
		if session, err = worker.Find(ctx, config); err != nil {
			return fmt.Errorf("finding the services in the background: %w", err)
		}
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	handle, err := session.Start(ctx, start)
	if err != nil {
		return refused(err)
	}
	if form == "json" {
		return a.json(struct {
			Run      string `json:"run"`
			Pipeline string `json:"pipeline"`
		}{handle.ID(), start.Pipeline.Name})
	}
	a.tell("The run goes on in the background: `groundplan watch %s` follows it.", handle.ID())
	_, err = fmt.Fprintln(a.stdout, handle.ID())
	return err
}

// background starts `groundplan dev --until-idle` in a session of its own and returns when it is ready.
func (a *app) background(ctx context.Context, config worker.Config) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(string(config.Home), servicesLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	args, env := a.devSettings()
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = theirs, log
	cmd.Dir = string(config.Home)
	ownSession(cmd)
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return err
	}
	if err := awaitReady(ctx, ready); err != nil {
		_ = cmd.Process.Kill() // it may still be starting
		return fmt.Errorf("%w; see %s", err, log.Name())
	}
	return cmd.Process.Release()
}

// devSettings repeats this command's settings: as variables, beside those that are inherited, since one may hold a
// password and everybody on the machine can read arguments. An empty value, which sets back to the default, only a flag
// can say.
func (a *app) devSettings() (args, env []string) {
	args = []string{"dev", "--until-idle", "--output", "json"}
	for name, value := range a.set {
		switch {
		case value == "":
			args = append(args, "--"+name+"=")
			continue
		case name == "home":
			value, _ = filepath.Abs(value) // its working folder is another one
		}
		env = append(env, worker.Variable(name)+"="+value)
	}
	return args, env
}

// awaitReady reads the document that dev writes once its services are up.
func awaitReady(ctx context.Context, from io.Reader) error {
	result := make(chan error, 1)
	go func() {
		var info worker.Info
		result <- json.NewDecoder(from).Decode(&info)
	}()
	select {
	case err := <-result:
		if errors.Is(err, io.EOF) || err != nil && strings.Contains(err.Error(), "unexpected") {
			return errors.New("they ended before they were ready")
		}
		return err
	case <-time.After(30 * time.Second):
		return errors.New("they were not ready within 30s")
	case <-ctx.Done():
		return ctx.Err()
	}
}
