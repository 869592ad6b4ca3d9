package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"
)

// ErrAway says that no sidecar listens: it never started, has been released, or died.
var ErrAway = errors.New("no sidecar answers")

// Client asks a run's sidecar. It may be used from many goroutines, and holds no connection that would tell when the
// sidecar goes.
type Client struct {
	socket string // empty where the sidecar is on another machine
	base   string // of all URLs, without a slash at its end
	http   *http.Client
}

// Dial returns a client of the sidecar that listens, or will listen, on socket. It doesn't connect yet.
func Dial(socket string) *Client {
	c := &Client{socket: socket, base: "http://sidecar"}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:         c.connect,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     time.Minute,
	}}
	return c
}

// Through returns a client of a sidecar whose calls somebody passes on: base is the URL of what stands for the sidecar's
// own root there, without a slash at its end, and over brings calls there. Of such a sidecar no process is known here:
// Status.PID is 0, and Release returns once it has answered. Whatever keeps a call from arriving is ErrAway; the one who
// passes on says so by 502 Bad Gateway.
func Through(over *http.Client, base string) *Client { return &Client{base: base, http: over} }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Place brings instances to the gate, and returns once all that can be placed are.
func (c *Client) Place(ctx context.Context, ask Placement) (Status, error) {
	return c.status(call[Status](ctx, c, http.MethodPost, "/v1/place", ask))
}

// Network replaces the state of the data network.
func (c *Client) Network(ctx context.Context, ask Network) (NetworkReply, error) {
	return call[NetworkReply](ctx, c, http.MethodPost, "/v1/network", ask)
}

// Open opens the gate for a stage; where key is known already, it only returns how that stage stands.
func (c *Client) Open(ctx context.Context, key string, ask RunStage) (RunStatus, error) {
	return call[RunStatus](ctx, c, http.MethodPost, "/v1/stages/"+url.PathEscape(key), ask)
}

// Wait returns how a stage stands: at once when it is done or has changed after version since, else when it changes,
// and at the latest after wait.
func (c *Client) Wait(ctx context.Context, key string, since int64, wait time.Duration) (RunStatus, error) {
	query := url.Values{"since": {strconv.FormatInt(since, 10)}, "wait": {wait.String()}}
	return call[RunStatus](ctx, c, http.MethodGet, "/v1/stages/"+url.PathEscape(key)+"?"+query.Encode(), nil)
}

// Halt ends every process of a stage, and returns once they are gone.
func (c *Client) Halt(ctx context.Context, key string) (RunStatus, error) {
	return call[RunStatus](ctx, c, http.MethodPost, "/v1/stages/"+url.PathEscape(key)+"/halt", nil)
}

// HaltAll halts every stage that runs, and returns once their processes are gone.
func (c *Client) HaltAll(ctx context.Context) (Status, error) {
	return c.status(call[Status](ctx, c, http.MethodPost, "/v1/halt", nil))
}

// Status returns what the sidecar holds.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return c.status(call[Status](ctx, c, http.MethodGet, "/v1/status", nil))
}

// Release ends every process and the sidecar itself, and returns once the sidecar's process is gone, and with it every
// namespace. A sidecar that is not there has been released: that is no error.
func (c *Client) Release(ctx context.Context) (Status, error) {
	if c.socket == "" {
		last, err := call[Status](ctx, c, http.MethodPost, "/v1/release", nil)
		if errors.Is(err, ErrAway) {
			err = nil
		}
		return last, err
	}
	gone, err := c.watch(ctx)
	if errors.Is(err, ErrAway) {
		return Status{}, nil
	}
	if err != nil {
		return Status{}, err
	}
	defer gone.close()
	last, err := call[Status](ctx, c, http.MethodPost, "/v1/release", nil)
	if err != nil && !errors.Is(err, ErrAway) {
		return last, err
	}
	c.Close()
	if err := gone.wait(ctx); err != nil {
		return last, fmt.Errorf("waiting for the sidecar to end: %w", err)
	}
	return last, nil
}

// status adds what only the asking side can know.
func (c *Client) status(status Status, err error) (Status, error) {
	if err == nil && c.socket != "" {
		status.PID, err = c.pid()
	}
	return status, err
}

// connect opens one connection, to a sidecar of this user only; root may ask anybody's.
func (c *Client) connect(ctx context.Context, _, _ string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, err
	}
	peer, err := peerOf(conn)
	if self := os.Geteuid(); err == nil && self != 0 && peer.uid != self {
		err = fmt.Errorf("the sidecar at %s belongs to user %d: it is not this run's", c.socket, peer.uid)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// pid is the sidecar's process id as this process sees it, 0 where the system doesn't tell.
func (c *Client) pid() (int, error) {
	conn, err := c.connect(context.Background(), "", "")
	if err != nil {
		return 0, away(err)
	}
	defer conn.Close()
	peer, err := peerOf(conn)
	return peer.pid, err
}

// call makes one call.
func call[Reply any](ctx context.Context, c *Client, method, path string, ask any) (Reply, error) {
	var reply Reply
	body, err := json.Marshal(ask)
	if err != nil {
		return reply, fmt.Errorf("encoding %s %s: %w", method, path, err)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return reply, fmt.Errorf("asking the sidecar: %w", err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return reply, fmt.Errorf("asking the sidecar: %w", c.away(ctx, err))
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return reply, fmt.Errorf("reading the sidecar's answer to %s: %w", path, c.away(ctx, err))
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return reply, Refusal(answer.StatusCode, data)
	}
	if err := json.Unmarshal(data, &reply); err != nil {
		return reply, fmt.Errorf("understanding the sidecar's answer to %s: %w", path, err)
	}
	return reply, nil
}

// Refusal makes an error of an answer with a status of 400 and above: ErrAway of a 502, else an *Error.
func Refusal(status int, body []byte) error {
	var said failure
	if json.Unmarshal(body, &said) != nil || said.Error == "" {
		said.Error = fmt.Sprintf("the sidecar answered %d %s: %s", status, http.StatusText(status), bytes.TrimSpace(body))
	}
	if status == http.StatusBadGateway {
		return fmt.Errorf("%w: %s", ErrAway, said.Error)
	}
	return &Error{Status: status, Message: said.Error}
}

// away marks the errors that mean that nobody is reached. On the way to another machine there are more of them than can
// be named.
func (c *Client) away(ctx context.Context, err error) error {
	if c.socket == "" && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", ErrAway, err)
	}
	return away(err)
}

// away marks the errors that mean that nobody listens.
func away(err error) error {
	for _, sign := range []error{os.ErrNotExist, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, sign) {
			return fmt.Errorf("%w: %w", ErrAway, err)
		}
	}
	return err
}
