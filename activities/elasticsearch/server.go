// Package elasticsearch pushes what a run left behind to Elasticsearch: the lines of its instances' logs, its events, what
// became of its instances, and its metrics, so that they are one timeline there.
//
// Nothing is written twice and nothing is lost, whatever happens in between. The id of a document is derived from the run
// and from where in the run's folder it is from, and a document is created, never replaced: a second try finds the
// first one's. What the server refuses is kept in the run's folder with the server's reason. How far the push has come is
// kept too, so that the next try doesn't begin at the first line; it is only a shortcut.
package elasticsearch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	client "github.com/elastic/go-elasticsearch/v8"
)

// Server says where Elasticsearch is and how it lets groundplan in. None of it ever stands in an error or in a file.
type Server struct {
	// URL is its address; empty: there is none. It may hold user and password.
	URL string
	// APIKey is the encoded API key; it goes before User and Password.
	APIKey string
	// User and Password go before those in the URL.
	User, Password string
	// CA is the path of a PEM file with the authorities that may have signed the server's certificate; empty: the machine's.
	CA string
}

// requestTimeout bounds one request: after it nobody knows what became of it, and it is sent again.
const requestTimeout = 2 * time.Minute

// mostAnswer bounds what is read of an answer, in bytes.
const mostAnswer = 64 << 20

// connection speaks with one server.
type connection struct {
	client    *client.BaseClient
	transport *http.Transport
	host      string
	pace      *pace
}

// connect prepares a connection; nothing is sent.
func (s Server) connect(p *pace) (*connection, error) {
	at, err := url.Parse(s.URL)
	if err != nil || at.Host == "" {
		return nil, errors.New("the URL of Elasticsearch can't be read") // it may hold a password
	}
	user, password := s.User, s.Password
	if user == "" && at.User != nil {
		user = at.User.Username()
		password, _ = at.User.Password()
	}
	at.User = nil
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = senders + 1
	if s.CA != "" {
		pool, err := authorities(s.CA)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c, err := client.NewBaseClient(client.Config{
		Addresses: []string{at.String()}, APIKey: s.APIKey, Username: user, Password: password,
		DisableRetry: true, Transport: transport,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to Elasticsearch at %s: %w", at.Host, err)
	}
	return &connection{client: c, transport: transport, host: at.Host, pace: p}, nil
}

func authorities(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the certificates that Elasticsearch is trusted by can't be read: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return pool, nil
}

func (c *connection) close() { c.transport.CloseIdleConnections() }

// Examine asks the server once whether it is there and knows the account.
func (s Server) Examine(ctx context.Context) error {
	c, err := s.connect(nil)
	if err != nil {
		return err
	}
	defer c.close()
	status, after, answer, err := c.do(ctx, http.MethodGet, "/", nil, nil)
	if err != nil || status == http.StatusOK || status == http.StatusForbidden { // it may know us, and not let us look
		return err
	}
	return refused(status, after, answer)
}

// do sends a request and reads the whole answer. The error is about the way there and back, not about what the server says.
func (c *connection) do(ctx context.Context, method, path string, body []byte, header http.Header) (status int, after string, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := c.client.Perform(request)
	if err != nil {
		return 0, "", nil, plain(err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, mostAnswer))
	if err != nil {
		return 0, "", nil, fmt.Errorf("reading its answer: %w", err)
	}
	return response.StatusCode, response.Header.Get("Retry-After"), answer, nil
}

// ask is do for one of the requests that aren't bulk, until there is an answer: it waits for a server that is away or busy
// as long as the pace allows. What the server refuses for good is a *refusal.
func (c *connection) ask(ctx context.Context, method, path string, body any) ([]byte, error) {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	for try := 0; ; try++ {
		status, after, answer, err := c.do(ctx, method, path, content, nil)
		if err == nil && status < 300 {
			c.pace.answered()
			return answer, nil
		}
		if err == nil {
			r := refused(status, after, answer)
			if !r.passing() {
				return nil, r
			}
			err = r
		}
		if err := c.pace.wait(ctx, try, err); err != nil {
			return nil, err
		}
	}
}

// plain is an error without the URL that net/http puts before it.
func plain(err error) error {
	if inner := (*url.Error)(nil); errors.As(err, &inner) {
		return inner.Err
	}
	return err
}

// refusal is what a server says instead of doing what it was asked.
type refusal struct {
	status int
	after  time.Duration // what it says to wait
	kind   string        // its own name for it: mapper_parsing_exception
	reason string
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("status %d", r.status)
	if name := http.StatusText(r.status); name != "" {
		text += " " + name
	}
	if r.reason != "" {
		text += ": " + r.reason
	}
	return text
}

// serverError is how Elasticsearch says what is wrong.
type serverError struct {
	Type     string       `json:"type"`
	Reason   string       `json:"reason"`
	CausedBy *serverError `json:"caused_by"`
}

// mostReason bounds what is repeated of a reason, and of its cause, in bytes.
const mostReason = 240

// text is the reason with the innermost cause, both cut to what fits into a sentence: a reason may repeat a whole document.
func (e serverError) text() string {
	text := e.Reason
	if text == "" {
		text = e.Type
	}
	text = short(text)
	inner := e.CausedBy
	for inner != nil && inner.CausedBy != nil {
		inner = inner.CausedBy
	}
	if inner != nil && inner.Reason != "" && !strings.Contains(text, inner.Reason) {
		text += ": " + short(inner.Reason)
	}
	return text
}

func short(text string) string {
	text = strings.TrimRight(strings.Join(strings.Fields(text), " "), ";")
	if len(text) > mostReason {
		text = strings.ToValidUTF8(text[:mostReason], "") + "…"
	}
	return text
}

func refused(status int, after string, answer []byte) *refusal {
	r := &refusal{status: status}
	if wait, err := time.ParseDuration(after + "s"); err == nil && wait > 0 {
		r.after = wait
	}
	var said struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(answer, &said) != nil {
		return r // a proxy's page
	}
	var detail serverError
	if json.Unmarshal(said.Error, &detail) != nil {
		_ = json.Unmarshal(said.Error, &detail.Reason) // older answers have a text there
	}
	r.kind, r.reason = detail.Type, detail.text()
	return r
}

// blocked says whether the server takes nothing because its disk is full or somebody has locked the index: that ends
// without groundplan's doing, if not soon.
func (r *refusal) blocked() bool {
	return r.kind == "cluster_block_exception" || r.status == http.StatusInsufficientStorage
}

// passing says whether the same may be taken later.
func (r *refusal) passing() bool {
	switch r.status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return true
	}
	return r.blocked()
}

// account says whether it is about who asks.
func (r *refusal) account() bool {
	return (r.status == http.StatusUnauthorized || r.status == http.StatusForbidden) && !r.blocked()
}

// lasting says whether an error on the way to the server will be the same next time: its certificate, or what it is.
func lasting(err error) bool {
	var verification *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &verification) || errors.As(err, &record) || strings.Contains(err.Error(), "not Elasticsearch") ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}
