package elasticsearch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// managed marks templates as groundplan's; version is raised whenever one of them changes.
const (
	managed         = "groundplan"
	templateVersion = 1
)

// meta is what both templates carry.
var meta = map[string]any{"managed_by": managed, "description": "Logs, events, results and metrics of test runs"}

// component is the name of the template that has the mappings; the user's own index templates may be composed of it too.
const component = "groundplan@mappings"

type object = map[string]any

// mappings are what the fields of documents are. Fields that aren't listed are kept and not indexed, and whatever a plan
// writes into its JSON lines is one flattened field: no plan can make the mapping grow.
func mappings() object {
	keyword := object{"type": "keyword", "ignore_above": 1024}
	long, double := object{"type": "long"}, object{"type": "double"}
	text := object{"type": "text", "norms": false}
	return object{
		"dynamic": false,
		"_meta":   meta,
		"properties": object{
			"@timestamp": object{"type": "date_nanos"}, "timestamp_from": keyword,
			"kind": keyword,
			"run":  keyword, "pipeline": keyword, "suite": keyword, "turn": keyword, "ground": keyword, "commit": keyword,
			"stage": keyword, "attempt": keyword, "phase": keyword,
			"group": keyword, "instance": long, "file": keyword, "offset": long, "line": long,
			"message": text, "length": long, "truncated": object{"type": "boolean"},
			"event":         object{"type": "flattened", "ignore_above": 4096},
			"event_dropped": object{"type": "boolean"},
			"result": object{"properties": object{
				"outcome": keyword, "host": keyword, "exit": long, "signal": keyword, "starts": long, "started": object{"type": "date_nanos"},
				"seconds": double, "peak_memory": long, "cpu": double, "last_lines": text,
			}},
			"metric": object{"properties": object{
				"name": keyword, "count": long, "sum": double, "min": double, "max": double, "mean": double,
				"p50": double, "p90": double, "p95": double, "p99": double,
			}},
		},
	}
}

// target is the index or data stream that a push goes to.
type target struct {
	// identity changes when somebody removes it and it is made anew: its UUID, or the first backing index's.
	identity string
	// stream says that it is a data stream: it takes no replacing of documents, and ids are unique only within the newest of
	// its backing indices.
	stream  bool
	backing []string
	note    string
}

// prepare brings the templates and the index there. What is there and isn't groundplan's is used as it is.
func (c *connection) prepare(ctx context.Context, index string) (target, error) {
	var t target
	if err := c.putTemplates(ctx, index); err != nil {
		var r *refusal
		if !errors.As(err, &r) || !r.account() || r.status != http.StatusForbidden {
			return t, fmt.Errorf("its templates can't be put: %w", err)
		}
		t.note = fmt.Sprintf("the account may not put the index templates (%s): the fields of %s are what somebody else made them", r.reason, index)
	}
	found, err := c.look(ctx, index)
	if err != nil {
		return t, err
	}
	if found == nil {
		if err := c.create(ctx, index); err != nil {
			return t, fmt.Errorf("the index can't be created: %w", err)
		}
		if found, err = c.look(ctx, index); err != nil {
			return t, err
		}
		if found == nil {
			return t, errors.New("the index was created and isn't there")
		}
	}
	found.note = t.note
	return *found, nil
}

// putTemplates brings the two templates there, unless they are there in this version.
func (c *connection) putTemplates(ctx context.Context, index string) error {
	name := "groundplan-" + index
	var known struct {
		Templates []struct {
			Template struct {
				Version int `json:"version"`
				Meta    struct {
					By string `json:"managed_by"`
				} `json:"_meta"`
			} `json:"index_template"`
		} `json:"index_templates"`
	}
	answer, err := c.ask(ctx, http.MethodGet, "/_index_template/"+name, nil)
	switch missing := (*refusal)(nil); {
	case errors.As(err, &missing) && missing.status == http.StatusNotFound:
	case err != nil:
		return err
	case json.Unmarshal(answer, &known) == nil && len(known.Templates) == 1:
		if have := known.Templates[0].Template; have.Meta.By != managed || have.Version >= templateVersion {
			return nil
		}
	}
	if _, err := c.ask(ctx, http.MethodPut, "/_component_template/"+component, object{
		"version": templateVersion, "_meta": meta, "template": object{"mappings": mappings()},
	}); err != nil {
		return err
	}
	_, err = c.ask(ctx, http.MethodPut, "/_index_template/"+name, object{
		"version": templateVersion, "_meta": meta, "index_patterns": []string{index}, "composed_of": []string{component}, "priority": 200,
	})
	if r := (*refusal)(nil); errors.As(err, &r) && r.status == http.StatusBadRequest {
		// Somebody has a template of this priority for these names: it is theirs to say what the fields are.
		return nil
	}
	return err
}

// look finds what has the index's name; nil where nothing has.
func (c *connection) look(ctx context.Context, index string) (*target, error) {
	answer, err := c.ask(ctx, http.MethodGet, "/_resolve/index/"+index, nil)
	if r := (*refusal)(nil); errors.As(err, &r) && r.status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the index can't be looked at: %w", err)
	}
	var found struct {
		Indices []struct {
			Name string `json:"name"`
		} `json:"indices"`
		Aliases []struct {
			Indices []string `json:"indices"`
		} `json:"aliases"`
		Streams []struct {
			Name    string   `json:"name"`
			Backing []string `json:"backing_indices"`
		} `json:"data_streams"`
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		return nil, fmt.Errorf("the index can't be looked at: %w", err)
	}
	switch {
	case len(found.Streams) == 1 && len(found.Streams[0].Backing) > 0:
		backing := found.Streams[0].Backing
		return &target{stream: true, identity: backing[len(backing)-1], backing: backing}, nil
	case len(found.Aliases) == 1 && len(found.Aliases[0].Indices) > 1:
		return nil, fmt.Errorf("%s is an alias of %d indices, in which an id isn't unique: name an index or a data stream", index, len(found.Aliases[0].Indices))
	case len(found.Indices) == 0 && len(found.Aliases) == 0:
		return nil, nil
	}
	id, err := c.uuid(ctx, index)
	return &target{identity: id}, err
}

func (c *connection) uuid(ctx context.Context, index string) (string, error) {
	answer, err := c.ask(ctx, http.MethodGet, "/"+index+"/_settings/index.uuid", nil)
	if r := (*refusal)(nil); errors.As(err, &r) && r.account() {
		return "", nil // it may be written to and not be looked at
	}
	if err != nil {
		return "", fmt.Errorf("the index can't be looked at: %w", err)
	}
	var settings map[string]struct {
		Settings struct {
			Index struct {
				UUID string `json:"uuid"`
			} `json:"index"`
		} `json:"settings"`
	}
	if err := json.Unmarshal(answer, &settings); err != nil {
		return "", fmt.Errorf("the index can't be looked at: %w", err)
	}
	for _, s := range settings {
		return s.Settings.Index.UUID, nil
	}
	return "", nil
}

// create makes the index, or the data stream where the user's own template wants one of that name. The same by somebody
// else at the same time is as good.
func (c *connection) create(ctx context.Context, index string) error {
	for _, path := range []string{"/" + index, "/_data_stream/" + index} {
		_, err := c.ask(ctx, http.MethodPut, path, nil)
		r := (*refusal)(nil)
		if err == nil || !errors.As(err, &r) || r.status != http.StatusBadRequest {
			return err
		}
		if r.kind == "resource_already_exists_exception" {
			return nil
		}
		if r.kind != "illegal_argument_exception" || path != "/"+index {
			return err
		}
	}
	return nil
}
