package elasticsearch

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
)

// again sends once more what the server refused before: somebody may have mended the index. What it refuses still takes the
// place of what was kept.
func (p *push) again(ctx context.Context) error {
	if p.state.Refused == 0 {
		return nil
	}
	old := refusals{path: p.refused.path}
	if err := old.open(p.state.RefusedBytes); err != nil {
		return err
	}
	if err := old.close(); err != nil {
		return err
	}
	// From here until the new file is noted, either of the two is right as a whole.
	p.state.RefusedBytes = -1
	if err := p.save(); err != nil {
		return err
	}
	still := refusals{path: p.refused.path + ".again"}
	if err := still.open(0); err != nil {
		return err
	}
	defer os.Remove(still.path)
	left, first := 0, ""
	err := p.pump(ctx, func(_ context.Context, each func(document, position) error) error {
		return eachRefused(p.refused.path, func(d document) error { return each(d, position{}) })
	}, func(b *batch) error {
		if left == 0 {
			first = b.first
		}
		left += b.refusals
		return still.add(b.refused)
	})
	if err != nil {
		_ = still.file.Close()
		return err
	}
	size, err := still.file.Seek(0, 2)
	if err != nil {
		return err
	}
	if err := still.file.Sync(); err != nil {
		return err
	}
	if err := still.file.Close(); err != nil {
		return err
	}
	if err := os.Rename(still.path, p.refused.path); err != nil {
		return err
	}
	p.state.Refused, p.state.RefusedBytes, p.state.FirstRefusal = int64(left), size, first
	return p.save()
}

// eachRefused calls each for every refused line of a log. Whatever else was refused is sent anyway, with all of its kind.
func eachRefused(path string, each func(document) error) error {
	return eachLine(path, func(raw []byte, _ int64) error {
		var line refusedDocument
		var about struct {
			Kind string `json:"kind"`
		}
		if err := json.Unmarshal(raw, &line); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		if json.Unmarshal(line.Document, &about) != nil || about.Kind != kindLog && about.Kind != kindPoint {
			return nil
		}
		return each(document{op: line.Op, id: line.ID, body: line.Document})
	})
}
