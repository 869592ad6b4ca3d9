package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// How patient a sender is.
const (
	// patience is for how long it tries a server that is away or overloaded and doesn't say until when.
	patience = time.Minute
	// answerWithin bounds one request.
	answerWithin = 30 * time.Second
	// firstPause is doubled after each try, up to longestPause.
	firstPause   = 500 * time.Millisecond
	longestPause = 10 * time.Second
	// largestAnswer is how much of an answer is read, in bytes.
	largestAnswer = 64 << 10
)

// sender sends requests, and again what may be sent again.
type sender struct {
	client   *http.Client
	deadline time.Time
	say      func(string)
	secrets  []string
	patience time.Duration
	pause    time.Duration
}

func newSender(deadline time.Time, say func(string), secrets []string) *sender {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	client := &http.Client{
		Transport: transport, Timeout: answerWithin,
		// A token isn't handed on to wherever a server points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &sender{client: client, deadline: deadline, say: say, secrets: secrets, patience: patience, pause: firstPause}
}

func (s *sender) close() { s.client.CloseIdleConnections() }

// message is one request.
type message struct {
	to     string // who it goes to, in a sentence: "the Pushgateway"
	method string
	url    *url.URL // with user and password, if there are any
	header map[string]string
	body   []byte
}

// send sends a message until it is taken, refused for good, or time is over, and returns the answer. The error is a
// sentence without secrets.
func (s *sender) send(ctx context.Context, m message) ([]byte, error) {
	began := time.Now()
	for pause := s.pause; ; pause = min(2*pause, longestPause) {
		answer, wait, err := s.once(ctx, m)
		if err == nil {
			return answer, nil
		}
		err = fmt.Errorf("%s at %s %s", m.to, m.url.Host, s.scrub(err.Error()))
		if wait < 0 || ctx.Err() != nil {
			return nil, err
		}
		until := time.Now().Add(wait)
		if wait == 0 {
			until = time.Now().Add(pause/2 + rand.N(pause/2+1))
			if until.Sub(began) > s.patience {
				return nil, fmt.Errorf("%w (tried for %s)", err, time.Since(began).Round(time.Second))
			}
		}
		if !s.deadline.IsZero() && until.After(s.deadline.Add(-time.Second)) {
			return nil, fmt.Errorf("%w; the stage's timeout ends before it can be asked again", err)
		}
		s.say(fmt.Sprintf("waiting for %s at %s", m.to, m.url.Host))
		select {
		case <-time.After(time.Until(until)):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// once sends a message. wait says when it may be sent again: after that time, 0 for whenever the sender likes, -1 for never.
func (s *sender) once(ctx context.Context, m message) (answer []byte, wait time.Duration, err error) {
	target := *m.url
	target.User = nil
	request, err := http.NewRequestWithContext(ctx, m.method, target.String(), bytes.NewReader(m.body))
	if err != nil {
		return nil, -1, errors.New("can't be asked: its URL is not one of a server")
	}
	for name, value := range m.header {
		request.Header.Set(name, value)
	}
	request.Header.Set("User-Agent", "groundplan")
	if user := m.url.User; user != nil && request.Header.Get("Authorization") == "" {
		password, _ := user.Password()
		request.SetBasicAuth(user.Username(), password)
	}
	response, err := s.client.Do(request)
	if err != nil {
		var of *url.Error // which holds the whole URL
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, 0, fmt.Errorf("can't be reached: %w", err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, largestAnswer))
	if err != nil {
		return nil, 0, fmt.Errorf("broke off its answer: %w", err)
	}
	return answer, pauseAsked(response), refused(response, answer)
}

// refused is what an answer says that is none of success.
func refused(response *http.Response, answer []byte) error {
	switch code := response.StatusCode; {
	case code/100 == 2:
		return nil
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fmt.Errorf("refuses the credentials, or wants some (%s)", response.Status)
	case code/100 == 3:
		return fmt.Errorf("points elsewhere (%s), which is not followed: configure the URL that it points to", response.Status)
	}
	text := "answered " + response.Status
	if said := excerpt(response.Header.Get("Content-Type"), answer); said != "" {
		text += ": " + said
	}
	return errors.New(text)
}

// pauseAsked is after what time a request may be sent again: what the answer says, 0 if it may be and nothing is said, -1 if
// it would be answered the same.
func pauseAsked(response *http.Response) time.Duration {
	switch response.StatusCode {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return retryAfter(response.Header.Get("Retry-After"), time.Now())
	}
	return -1
}

// retryAfter reads a Retry-After: seconds, or a date. 0 is for none, and for one that can't be read.
func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// longestExcerpt is how much of an answer is quoted, in characters.
const longestExcerpt = 200

// excerpt is the beginning of an answer in text, on one line.
func excerpt(kind string, answer []byte) string {
	if strings.HasPrefix(kind, "application/x-protobuf") {
		return statusMessage(answer)
	}
	text := []rune(strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(answer), ""), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " "))
	if len(text) > longestExcerpt {
		return string(text[:longestExcerpt]) + "…"
	}
	return string(text)
}

// scrub takes secrets out of a text: a server may quote what it was sent.
func (s *sender) scrub(text string) string {
	for _, secret := range s.secrets {
		text = strings.ReplaceAll(text, secret, "•••")
	}
	return text
}

// shortestSecret is what is taken out of texts; anything shorter would take words apart.
const shortestSecret = 4

// secrets are what no error may say.
func (t Targets) secrets() []string {
	var all []string
	add := func(text string) {
		if len(text) >= shortestSecret {
			all = append(all, text)
		}
	}
	for _, value := range t.Headers {
		add(value)
		_, token, _ := strings.Cut(value, " ") // Bearer x
		add(token)
	}
	for _, text := range []string{t.Prometheus, t.OTLP} {
		u, err := url.Parse(text)
		if err != nil {
			continue
		}
		if password, there := u.User.Password(); there {
			add(password)
		}
		for _, values := range u.Query() {
			for _, value := range values {
				add(value)
			}
		}
	}
	return all
}

// ParseHeaders reads headers as OTEL_EXPORTER_OTLP_HEADERS has them, `name=value,name=value`, values percent-encoded. Its
// error doesn't repeat values.
func ParseHeaders(text string) (map[string]string, error) {
	headers := map[string]string{}
	for _, part := range strings.Split(text, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		if !ok || !isToken(name) {
			return nil, errors.New("must be headers like authorization=Bearer%20TOKEN,x-scope=me")
		}
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil || strings.ContainsFunc(value, unicode.IsControl) {
			return nil, fmt.Errorf("the value of the header %s is not percent-encoded text", name)
		}
		headers[name] = value
	}
	return headers, nil
}

// isToken says whether a name can be that of a header.
func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}
