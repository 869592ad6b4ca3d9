package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"

	sdkworker "go.temporal.io/sdk/worker"
)

// registerAll adds groundplan's own workflows and activities.
func registerAll(Config, sdkworker.Registry) error {
	return errors.New("workflows and activities are not linked in yet")
}

// short is a short name for a long text.
func short(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}
