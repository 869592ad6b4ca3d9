package export

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// prometheus sends a run's metrics to where a URL leads: to a Pushgateway if it names a server alone or a group of metrics
// (…/metrics/job/…), to a remote write endpoint if it has any other path.
func (s *sender) prometheus(ctx context.Context, address string, run Run) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("metrics can't be sent to Prometheus: its address is not a URL") // err repeats it, with a password
	}
	switch {
	case u.Path == "" || u.Path == "/":
		u = u.JoinPath(grouping(run))
	case !strings.Contains(u.Path, "/metrics/job"):
		return s.remoteWrite(ctx, u, run)
	}
	var text bytes.Buffer
	if err := Prometheus(&text, run); err != nil {
		return err
	}
	_, err = s.send(ctx, message{
		to: "the Pushgateway", method: "PUT", url: u, header: map[string]string{"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}, body: text.Bytes(),
	})
	return err
}

// grouping is the path of a run's metrics on a Pushgateway. A run takes the place of the one before of the same pipeline,
// and of the same matrix cell: a Pushgateway forgets nothing by itself.
func grouping(run Run) string {
	instance := run.Pipeline
	for _, axis := range slices.Sorted(maps.Keys(run.Cell)) {
		instance += fmt.Sprintf(" %s=%v", axis, run.Cell[axis])
	}
	return "/metrics/job/groundplan/" + pathLabel("instance", instance)
}

// pathLabel writes a label into a path as a Pushgateway reads it.
func pathLabel(name, value string) string {
	if value == "" || value == "." || value == ".." || strings.ContainsRune(value, '/') {
		return name + "@base64/" + base64.URLEncoding.EncodeToString([]byte(value)) + emptyPadding(value)
	}
	return name + "/" + url.PathEscape(value)
}

// emptyPadding stands for an empty value, whose encoding is empty too and would be no part of a path.
func emptyPadding(value string) string {
	if value == "" {
		return "="
	}
	return ""
}
