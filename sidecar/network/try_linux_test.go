package network

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/groundplan/groundplan/sidecar/launch"
)

func TestTrial(t *testing.T) {
	if err := launch.Supported(); err != nil {
		t.Skip(err)
	}
	trial, err := Try(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if trial.UserSpace != "" {
		t.Skipf("this machine can't shape in user space: %s", trial.UserSpace)
	}
	if trial.Achieved < trial.Asked {
		t.Errorf("%+v", trial)
	}
	t.Logf("%+v", trial)
}

func TestTrialIsCutShort(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Try(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the end of the context", err)
	}
	if os.Getenv(tryVariable) != "" {
		t.Error("the trial's variable has stayed in this process")
	}
}
