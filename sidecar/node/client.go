package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/groundplan/groundplan/sidecar/control"
)

// Client speaks with one node's agent. It may be used from many goroutines. Whatever keeps a call from arriving is
// control.ErrAway; what the agent refuses is a *control.Error.
type Client struct {
	http *http.Client
}

const root = "http://node"

// Dial returns a client of the agent that dial connects to. It doesn't connect yet. Close drops what is idle then.
func Dial(dial func(ctx context.Context) (net.Conn, error), token string) *Client {
	return &Client{http: &http.Client{Transport: &bearer{token: token, next: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     time.Minute,
	}}}}
}

// bearer adds the token to each request.
type bearer struct {
	token string
	next  *http.Transport
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

func (b *bearer) CloseIdleConnections() { b.next.CloseIdleConnections() }

// Close drops idle connections, those of Control's clients too.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Node returns what the agent says of its node.
func (c *Client) Node(ctx context.Context) (Info, error) {
	var info Info
	err := c.call(ctx, http.MethodGet, "/v1/node", nil, &info)
	return info, err
}

// Ensure has a sidecar for the run on this node, and returns how it stands once it answers.
func (c *Client) Ensure(ctx context.Context, run string, ask Ask) (control.Status, error) {
	var status control.Status
	err := c.call(ctx, http.MethodPut, runPath(run), ask, &status)
	return status, err
}

// Control returns a client of the run's sidecar on this node. Its calls fail with control.ErrAway while there is none.
func (c *Client) Control(run string) *control.Client {
	return control.Through(c.http, root+runPath(run)+"/control")
}

// Archive returns what the run has on this node as a tar stream (see the package's comment). The caller reads it to the
// entry ManifestName, without which it is not whole, and closes it.
func (c *Client) Archive(ctx context.Context, run string, o ArchiveOptions) (io.ReadCloser, error) {
	query := url.Values{}
	for name, value := range map[string]string{"only": o.Only, "group": o.Group} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if o.Index != nil {
		query.Set("index", strconv.Itoa(*o.Index))
	}
	answer, err := c.do(ctx, http.MethodGet, runPath(run)+"/archive?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	return answer.Body, nil
}

// Remove releases the run on this node and forgets all of it. A run that isn't there is no error.
func (c *Client) Remove(ctx context.Context, run string) error {
	return c.call(ctx, http.MethodDelete, runPath(run), nil, &struct{}{})
}

func runPath(run string) string { return "/v1/runs/" + url.PathEscape(run) }

// call makes one call with JSON on both ways.
func (c *Client) call(ctx context.Context, method, path string, ask, reply any) error {
	answer, err := c.do(ctx, method, path, ask)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("reading the agent's answer to %s %s: %w", method, path, away(ctx, err))
	}
	if err := json.Unmarshal(data, reply); err != nil {
		return fmt.Errorf("understanding the agent's answer to %s %s: %w", method, path, err)
	}
	return nil
}

// do makes one call and returns an answer that is none of refusal.
func (c *Client) do(ctx context.Context, method, path string, ask any) (*http.Response, error) {
	var body io.Reader
	if ask != nil {
		data, err := json.Marshal(ask)
		if err != nil {
			return nil, fmt.Errorf("encoding %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, root+path, body)
	if err != nil {
		return nil, fmt.Errorf("asking the node's agent: %w", err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the node's agent: %w", away(ctx, err))
	}
	if answer.StatusCode < http.StatusBadRequest {
		return answer, nil
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the agent's answer to %s %s: %w", method, path, away(ctx, err))
	}
	return nil, control.Refusal(answer.StatusCode, data)
}

// away marks what happens on the way, unless it was the caller who has given up.
func away(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", control.ErrAway, err)
}
