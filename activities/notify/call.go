package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// timeout is for one call with all its redirects.
	timeout = 10 * time.Second
	// mostAnswer is how much of an answer is read, so that the connection can be used again; nobody looks at it.
	mostAnswer = 64 << 10
	// mostRedirects bounds redirects on the same host.
	mostRedirects = 3
	// longestAfter bounds how long a server can put the next try off.
	longestAfter = time.Hour
)

// Message is one call. URL and Key are secrets: no error repeats any part of them.
type Message struct {
	URL string
	// Key is `whsec_` and the key in base64; empty: the call is not signed.
	Key string
	// ID is the same over all tries of the same message.
	ID   string
	Body []byte
}

// CallError is a call that was not taken.
type CallError struct {
	Text string
	// Final says that trying again would change nothing.
	Final bool
	// After is how long the server asked to wait; 0: it didn't.
	After time.Duration
}

func (e *CallError) Error() string { return e.Text }

// Caller makes calls.
type Caller struct {
	client *http.Client
	now    func() time.Time
}

// NewCaller makes one that keeps no connections: calls are few and far between.
func NewCaller() *Caller {
	return &Caller{now: time.Now, client: &http.Client{
		Timeout:       timeout,
		CheckRedirect: redirect,
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
		},
	}}
}

// redirect follows a redirect only where the message goes on as it is, to the same host by the same scheme.
func redirect(next *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > mostRedirects || next.Method != first.Method || next.URL.Host != first.URL.Host || next.URL.Scheme != first.URL.Scheme {
		return http.ErrUseLastResponse
	}
	return nil
}

// Call sends a message and returns the status of the answer, 2xx. An error that isn't a *CallError may pass as well.
func (c *Caller) Call(ctx context.Context, m Message) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, m.URL, bytes.NewReader(m.Body))
	if err != nil { // it would repeat the URL
		return "", &CallError{Text: "the webhook is not a URL that can be called", Final: true}
	}
	if err := sign(request.Header, m, c.now()); err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "groundplan")
	answer, err := c.client.Do(request)
	if err != nil {
		return "", &CallError{Text: unreachable(err)}
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, mostAnswer))
	return judge(answer)
}

// sign sets the headers of Standard Webhooks.
func sign(h http.Header, m Message, now time.Time) error {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	h.Set("webhook-id", m.ID)
	h.Set("webhook-timestamp", timestamp)
	if m.Key == "" {
		return nil
	}
	encoded, prefixed := strings.CutPrefix(m.Key, "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !prefixed || err != nil || len(key) < 24 || len(key) > 64 {
		return errors.New("the webhook's secret must be `whsec_` and 24 to 64 bytes in base64: `echo whsec_$(openssl rand -base64 32)` makes one")
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", m.ID, timestamp)
	mac.Write(m.Body)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return nil
}

// judge says what an answer means.
func judge(answer *http.Response) (string, error) {
	status := fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	switch code := answer.StatusCode; {
	case code >= 200 && code < 300:
		return status, nil
	case code >= 300 && code < 400:
		return "", &CallError{Text: "the webhook answered " + status + ", and redirects are only followed on the same host, by the same scheme and method", Final: true}
	case code == http.StatusRequestTimeout || code == http.StatusTooManyRequests || code >= 500:
		return "", &CallError{Text: "the webhook answered " + status, After: retryAfter(answer.Header)}
	}
	return "", &CallError{Text: "the webhook answered " + status, Final: true}
}

// retryAfter is how long a server asks to wait, in seconds; it may say a date too, which is left to the back-off.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds <= 0 {
		return 0
	}
	return min(time.Duration(min(seconds, 1_000_000))*time.Second, longestAfter)
}

// unreachable says why a call got no answer. The errors themselves name hosts and paths, which may be secret.
func unreachable(err error) string {
	var (
		lookup      *net.DNSError
		timed       net.Error
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		name        x509.HostnameError
	)
	why := "the connection failed"
	switch {
	case errors.As(err, &lookup):
		why = "its host name could not be looked up"
	case errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &name):
		why = "its TLS certificate is not to be trusted"
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "the connection was refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		why = "the connection was closed without an answer"
	case errors.As(err, &timed) && timed.Timeout():
		why = fmt.Sprintf("there was no answer within %v", timeout)
	}
	return "the webhook could not be reached: " + why
}
