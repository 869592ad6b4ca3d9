package main

import (
	"errors"

	"github.com/groundplan/groundplan/activities/stage"
)

// The five exit statuses.
const (
	exitPassed    = 0
	exitFailed    = 1
	exitUsage     = 2
	exitInvalid   = 3
	exitCancelled = 130
)

// exitError is an error that knows the exit status it leads to.
type exitError struct {
	error
	code int
}

func (e *exitError) ExitCode() int { return e.code }
func (e *exitError) Unwrap() error { return e.error }

// usage is an error of whoever called: a wrong flag, a file that can't be used, a run that isn't there.
func usage(err error) error { return &exitError{err, exitUsage} }

// errSaid stands where the person has been told already.
var errSaid = errors.New("")

// verdict is the error for a run that ended that way; nil for one that passed.
func verdict(v stage.Verdict) error {
	switch v {
	case stage.Passed:
		return nil
	case stage.Failed:
		return &exitError{errSaid, exitFailed}
	case stage.Cancelled:
		return &exitError{errSaid, exitCancelled}
	}
	return &exitError{errSaid, exitInvalid}
}

// exitStatus is that of an error. One that says nothing else is about the ground: a service away, a disk full.
func exitStatus(err error) int {
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return exitPassed
	case errors.As(err, &coded):
		return coded.ExitCode()
	}
	return exitInvalid
}
