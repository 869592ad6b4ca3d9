package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = "whsec_" + base64.StdEncoding.EncodeToString([]byte("a key of more than 24 bytes, not a real one"))

// verify is a receiver's side of Standard Webhooks, written from its text and not from this package.
func verify(secret string, header http.Header, body []byte) error {
	id, at := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if id == "" || err != nil {
		return fmt.Errorf("id %q, timestamp %q", id, at)
	}
	if age := time.Since(time.Unix(seconds, 0)); age > 5*time.Minute || age < -5*time.Minute {
		return fmt.Errorf("it is %v old", age)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, raw)
	mac.Write([]byte(id + "." + at + "." + string(body)))
	want := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for candidate := range strings.SplitSeq(header.Get("Webhook-Signature"), " ") {
		version, signature, _ := strings.Cut(candidate, ",")
		if version == "v1" && subtle.ConstantTimeCompare([]byte(signature), []byte(want)) == 1 {
			return nil
		}
	}
	return errors.New("no signature fits")
}

func TestCallIsSigned(t *testing.T) {
	var seen error
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen, got = verify(key, r.Header, body), r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+string(body)
	}))
	defer server.Close()
	message := Message{URL: server.URL + "/hook", Key: key, ID: "msg_1", Body: []byte(`{"a":1}`)}
	status, err := NewCaller().Call(t.Context(), message)
	if err != nil || status != "200 OK" || seen != nil || got != `POST /hook application/json {"a":1}` {
		t.Errorf("%q, %v; verified: %v; got %s", status, err, seen, got)
	}
	message.Key = "whsec_" + base64.StdEncoding.EncodeToString([]byte("another key of more than 24 bytes"))
	if _, err := NewCaller().Call(t.Context(), message); err != nil || seen == nil {
		t.Errorf("a wrong key is taken: %v, %v", err, seen)
	}
	message.Key = ""
	if _, err := NewCaller().Call(t.Context(), message); err != nil || seen == nil {
		t.Errorf("without a key: %v, %v", err, seen)
	}
	for _, bad := range []string{"secret", "whsec_short", "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65)), "whsec_!!!"} {
		message.Key = bad
		_, err := NewCaller().Call(t.Context(), message)
		if err == nil || strings.Contains(err.Error(), strings.TrimPrefix(bad, "whsec_")) && bad != "secret" {
			t.Errorf("the key %s: %v", bad, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		code  int
		after string
		final bool
		waits time.Duration
		ok    bool
	}{
		{code: 200, ok: true}, {code: 204, ok: true},
		{code: 400, final: true}, {code: 401, final: true}, {code: 404, final: true}, {code: 410, final: true},
		{code: 408}, {code: 429, after: "7", waits: 7 * time.Second}, {code: 429, after: "soon"}, {code: 429, after: "99999999", waits: time.Hour},
		{code: 500}, {code: 503, after: "1", waits: time.Second}, {code: 304, final: true},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if c.after != "" {
				w.Header().Set("Retry-After", c.after)
			}
			w.WriteHeader(c.code)
		}))
		_, err := NewCaller().Call(t.Context(), Message{URL: server.URL, ID: "m"})
		server.Close()
		var call *CallError
		switch {
		case c.ok && err == nil:
		case c.ok || !errors.As(err, &call):
			t.Errorf("%d: %v", c.code, err)
		case call.Final != c.final || call.After != c.waits || !strings.Contains(call.Text, strconv.Itoa(c.code)):
			t.Errorf("%d: %+v", c.code, call)
		}
	}
}

// TestRedirects: a message goes on to the same host only, and only as it is.
func TestRedirects(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/same":
			http.Redirect(w, r, "/end", http.StatusTemporaryRedirect)
		case "/other":
			http.Redirect(w, r, other.URL, http.StatusPermanentRedirect)
		case "/get":
			http.Redirect(w, r, "/end", http.StatusSeeOther)
		case "/round":
			http.Redirect(w, r, "/round", http.StatusTemporaryRedirect)
		case "/end":
			bodies = append(bodies, r.Method+string(body)+r.Header.Get("webhook-id"))
		}
	}))
	defer server.Close()
	for path, ok := range map[string]bool{"/same": true, "/other": false, "/get": false, "/round": false} {
		_, err := NewCaller().Call(t.Context(), Message{URL: server.URL + path, ID: "m", Body: []byte("body")})
		var call *CallError
		if ok != (err == nil) || !ok && (!errors.As(err, &call) || !call.Final) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if len(bodies) != 1 || bodies[0] != "POSTbodym" || elsewhere.Load() != 0 {
		t.Errorf("arrived %q; elsewhere %d", bodies, elsewhere.Load())
	}
}

// TestErrorsTellNoSecret: a webhook's URL is a secret from its host to its query.
func TestErrorsTellNoSecret(t *testing.T) {
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := refused.Addr().(*net.TCPAddr).Port
	_ = refused.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = c.Close()
		}
	}))
	defer cut.Close()
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	defer untrusted.Close()
	untrusted.Config.ErrorLog = nil
	for target, want := range map[string]string{
		fmt.Sprintf("http://127.0.0.1:%d/s3cret?token=s3cret", port): "the connection was refused",
		"http://s3cret.invalid/":                                     "its host name could not be looked up",
		cut.URL + "/s3cret":                                          "closed without an answer",
		untrusted.URL + "/s3cret":                                    "its TLS certificate is not to be trusted",
		"http://s3cret.invalid:port/":                                "not a URL that can be called",
		"s3cret://x":                                                 "the connection failed",
	} {
		_, err := NewCaller().Call(t.Context(), Message{URL: target, ID: "m"})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %s", target, err, want)
		}
		if u, err2 := url.Parse(target); err2 == nil && err != nil && strings.Contains(err.Error(), u.Host) {
			t.Errorf("the message names the host: %v", err)
		}
	}
}

// TestEndlessAnswer: an answer without an end costs no memory and comes to an end.
func TestEndlessAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 1<<16)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	began := time.Now()
	if _, err := NewCaller().Call(t.Context(), Message{URL: server.URL, ID: "m"}); err != nil || time.Since(began) > timeout {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
