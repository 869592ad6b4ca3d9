package export

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/golang/snappy"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/pipelines"
)

// got is a request that a server was sent.
type got struct {
	method, path, user, password string
	header                       http.Header
	body                         []byte
}

// server answers one request after the other with answers, the last of them again and again.
func server(t *testing.T, answers ...http.HandlerFunc) (address string, requests func() []got) {
	t.Helper()
	var mu sync.Mutex
	var all []got
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		user, password, _ := r.BasicAuth()
		mu.Lock()
		all = append(all, got{r.Method, r.URL.EscapedPath(), user, password, r.Header, body})
		answer := answers[min(len(all), len(answers))-1]
		mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []got { mu.Lock(); defer mu.Unlock(); return all }
}

func status(code int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// hasty is a sender that waits for nobody.
func hasty(t *testing.T, to Targets) *sender {
	s := newSender(time.Now().Add(time.Minute), func(string) {}, to.secrets())
	s.pause, s.patience = time.Millisecond, 50*time.Millisecond
	t.Cleanup(s.close)
	return s
}

func TestPushgateway(t *testing.T) {
	run := sampleRun(t)
	run.Cell = map[string]any{"rtt": "20ms", "path": "a/b"}
	address, requests := server(t, status(http.StatusOK, ""))
	if err := hasty(t, Targets{}).prometheus(t.Context(), strings.Replace(address, "://", "://me:secret@", 1)+"/", run); err != nil {
		t.Fatal(err)
	}
	r := requests()[0]
	if r.method != "PUT" || r.path != "/metrics/job/groundplan/instance@base64/ZGh0IHBhdGg9YS9iIHJ0dD0yMG1z" || r.user != "me" || r.password != "secret" {
		t.Errorf("got %s %s of %s", r.method, r.path, r.user)
	}
	var want bytes.Buffer
	if err := Prometheus(&want, run); err != nil || !bytes.Equal(r.body, want.Bytes()) {
		t.Errorf("the body is not the file's (%v)", err)
	}
	if err := hasty(t, Targets{}).prometheus(t.Context(), address+"/metrics/job/mine/env/ci", run); err != nil || requests()[1].path != "/metrics/job/mine/env/ci" {
		t.Errorf("%v, %v", requests()[1].path, err)
	}
}

func TestPathLabel(t *testing.T) {
	for value, want := range map[string]string{
		"dht": "l/dht", "a b=1": "l/a%20b=1", "": "l@base64/=", "..": "l@base64/Li4=", "a/b": "l@base64/YS9i", "ü?#%": "l/%C3%BC%3F%23%25",
	} {
		if got := pathLabel("l", value); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}

// FuzzPathLabel has every value come back from the path.
func FuzzPathLabel(f *testing.F) {
	for _, value := range []string{"dht", "", "..", "a/b", "ü?#%", "\x00\xff"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		u, err := url.Parse("http://h/metrics/job/groundplan/")
		if err != nil {
			t.Fatal(err)
		}
		escaped := u.JoinPath(pathLabel("l", value)).EscapedPath()
		rest, ok := strings.CutPrefix(escaped, "/metrics/job/groundplan/l")
		if !ok || strings.Count(rest, "/") != 1 {
			t.Fatalf("%q became %s", value, escaped)
		}
		if encoded, ok := strings.CutPrefix(rest, "@base64/"); ok {
			if value != "" && base64Of(t, encoded) != value {
				t.Errorf("%q became %s", value, escaped)
			}
			return
		}
		if back, err := url.PathUnescape(rest[1:]); err != nil || back != value {
			t.Errorf("%q became %s, which is %q (%v)", value, escaped, back, err)
		}
	})
}

// written reads what was sent by remote write: labels → value, and the time of all.
func written(t *testing.T, body []byte) (samples map[string]float64, at int64) {
	t.Helper()
	data, err := snappy.Decode(nil, body)
	if err != nil {
		t.Fatal(err)
	}
	samples = map[string]float64{}
	fields(t, data, func(_ protowire.Number, series []byte, _ uint64) {
		var labels, before string
		var value float64
		fields(t, series, func(number protowire.Number, inner []byte, _ uint64) {
			var parts [3]string
			fields(t, inner, func(n protowire.Number, text []byte, bits uint64) {
				switch {
				case number == 1:
					parts[n] = string(text)
				case n == 1:
					value = math.Float64frombits(bits)
				default:
					at = int64(bits)
				}
			})
			if number == 1 {
				if parts[1] <= before {
					t.Errorf("the label %s comes after %s", parts[1], before)
				}
				before = parts[1]
				labels += fmt.Sprintf("%s=%q ", parts[1], parts[2])
			}
		})
		if _, twice := samples[labels]; twice {
			t.Errorf("twice: %s", labels)
		}
		samples[labels] = value
	})
	return samples, at
}

func fields(t *testing.T, data []byte, each func(number protowire.Number, inner []byte, bits uint64)) {
	t.Helper()
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		data = data[n:]
		var inner []byte
		var bits uint64
		switch kind {
		case protowire.BytesType:
			inner, n = protowire.ConsumeBytes(data)
		case protowire.Fixed64Type:
			bits, n = protowire.ConsumeFixed64(data)
		default:
			bits, n = protowire.ConsumeVarint(data)
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		each(number, inner, bits)
		data = data[n:]
	}
}

func TestRemoteWrite(t *testing.T) {
	run := sampleRun(t)
	address, requests := server(t, status(http.StatusServiceUnavailable, "busy"), status(http.StatusNoContent, ""))
	if err := hasty(t, Targets{}).prometheus(t.Context(), address+"/api/v1/write", run); err != nil {
		t.Fatal(err)
	}
	r := requests()[1]
	if r.path != "/api/v1/write" || r.header.Get("Content-Encoding") != "snappy" || r.header.Get("X-Prometheus-Remote-Write-Version") != "0.1.0" {
		t.Errorf("got %s %v", r.path, r.header)
	}
	samples, at := written(t, r.body)
	if at != second(6).UnixMilli() {
		t.Errorf("the time is %d", at)
	}
	label := `__name__="groundplan_rtt_seconds" event="split" ground="local" group="us" job="groundplan" phase="during" pipeline="dht" quantile="0.99" run="20261123-sample" stage="load" suite="nightly" `
	if samples[label] != 2 {
		t.Errorf("%s is not among %d samples", label, len(samples))
	}
	want := 0
	for _, f := range families(run) {
		want += len(f.samples)
	}
	if len(samples) != want {
		t.Errorf("%d samples, want %d", len(samples), want)
	}
}

// TestRemoteWriteInParts sends more series than fit into one request.
func TestRemoteWriteInParts(t *testing.T) {
	run := sampleRun(t)
	var content strings.Builder
	for i := range 600 {
		fmt.Fprintf(&content, `{"type":"point","name":"m%d","measures":{"value":1}}`+"\n", i)
	}
	leave(t, run.Folder, "us", 0, "results.out", content.String())
	summarise(t, &run)
	address, requests := server(t, status(http.StatusOK, ""))
	if err := hasty(t, Targets{}).prometheus(t.Context(), address+"/api/prom/push", run); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, r := range requests() {
		samples, _ := written(t, r.body)
		total += len(samples)
		if len(samples) > seriesPerRequest {
			t.Errorf("%d series in a request", len(samples))
		}
	}
	if len(requests()) < 3 || total < 600*8*2 {
		t.Errorf("%d samples in %d requests", total, len(requests()))
	}
}

// TestAway has servers that can't be sent to, and reads the sentences.
func TestAway(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	run := sampleRun(t)
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
		tries  int // 0: several
	}{
		"away":            {nil, "can't be reached: dial tcp", 0},
		"overloaded":      {status(http.StatusTooManyRequests, "slow down"), "answered 429 Too Many Requests: slow down (tried for ", 0},
		"wrong":           {status(http.StatusBadRequest, "out of\nbounds\x00 \xff"), "answered 400 Bad Request: out of bounds", 1},
		"not let in":      {status(http.StatusUnauthorized, "no"), "refuses the credentials, or wants some (401 Unauthorized)", 1},
		"elsewhere":       {status(http.StatusFound, "", "Location", "http://127.0.0.1:1/"), "points elsewhere (302 Found), which is not followed", 1},
		"quotes a secret": {status(http.StatusBadRequest, "bad token hunter2-token"), "answered 400 Bad Request: bad token •••", 1},
		"broken off":      {cut, "broke off its answer: unexpected EOF", 0},
		"until too late":  {status(http.StatusServiceUnavailable, "", "Retry-After", "3600"), "answered 503 Service Unavailable; the stage's timeout ends before it can be asked again", 1},
	} {
		t.Run(name, func(t *testing.T) {
			address, requests := gone.URL, func() []got { return nil }
			if c.answer != nil {
				address, requests = server(t, c.answer)
			}
			to := Targets{OTLP: strings.Replace(address, "://", "://me:hunter2-password@", 1) + "/base?key=hunter2-key", Headers: map[string]string{"authorization": "Bearer hunter2-token"}}
			_, err := hasty(t, to).otlp(t.Context(), to, run)
			host := strings.TrimPrefix(address, "http://")
			if err == nil || !strings.HasPrefix(err.Error(), "the OTLP endpoint at "+host+" ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v", err)
			}
			if n := len(requests()); c.tries == 1 && n != 1 || c.answer != nil && c.tries == 0 && n < 2 {
				t.Errorf("%d tries", n)
			}
		})
	}
}

// TestUnsent has the stage told in one sentence, and the files kept.
func TestUnsent(t *testing.T) {
	run := sampleRun(t)
	refusing, _ := server(t, status(http.StatusBadRequest, "no"))
	to := Targets{Prometheus: refusing, OTLP: refusing}
	o, err := Export(t.Context(), run, []string{pipelines.ExportPrometheus, pipelines.ExportOTLP}, to, time.Time{}, func(string) {})
	host := strings.TrimPrefix(refusing, "http://")
	want := fmt.Sprintf("the Pushgateway at %s answered 400 Bad Request: no; the OTLP endpoint at %s answered 400 Bad Request: no; the files are in %s", host, host, run.Folder)
	if err != nil || o.Unsent != want {
		t.Errorf("got %q, %v", o.Unsent, err)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	run := sampleRun(t)
	address, requests := server(t, status(http.StatusTooManyRequests, "", "Retry-After", "1"), status(http.StatusOK, ""))
	began := time.Now()
	if err := hasty(t, Targets{}).prometheus(t.Context(), address, run); err != nil || len(requests()) != 2 || time.Since(began) < time.Second {
		t.Errorf("%v after %d requests and %s", err, len(requests()), time.Since(began))
	}
}

func TestRetryAfter(t *testing.T) {
	now := second(0)
	for text, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, " 7 ": 7 * time.Second, "-1": 0, "soon": 0, "1e9": 0, "99999999999999": 0,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("3")
	f.Add("Tue, 14 Nov 2023 22:13:20 GMT")
	f.Fuzz(func(t *testing.T, text string) {
		if got := retryAfter(text, second(0)); got < 0 {
			t.Errorf("%q: %s", text, got)
		}
	})
}

func TestParseHeaders(t *testing.T) {
	for text, want := range map[string]string{
		"": "map[]", "authorization=Bearer%20x, a = b ,": "map[a:b authorization:Bearer x]", "k=v=w": "map[k:v=w]",
		"novalue": "must be headers like", "bad name=x": "must be headers like", "=x": "must be headers like",
		"k=%zz": "the value of the header k is not", "k=a%0Ab": "the value of the header k is not",
	} {
		headers, err := ParseHeaders(text)
		if got := fmt.Sprint(headers, err); !strings.Contains(got, want) || err != nil && strings.Contains(err.Error(), "zz") {
			t.Errorf("%q: got %s", text, got)
		}
	}
}

// FuzzParseHeaders has whatever is read be what a request can carry.
func FuzzParseHeaders(f *testing.F) {
	f.Add("authorization=Bearer%20x,a=b")
	f.Fuzz(func(t *testing.T, text string) {
		headers, err := ParseHeaders(text)
		if err != nil {
			return
		}
		r := httptest.NewRequest("GET", "/", nil)
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		if err := r.Write(io.Discard); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// TestTextIsRead has Prometheus' own parser read the file.
func TestTextIsRead(t *testing.T) {
	var text bytes.Buffer
	run := sampleRun(t)
	if err := Prometheus(&text, run); err != nil {
		t.Fatal(err)
	}
	parser := expfmt.TextParser{}
	read, err := parser.TextToMetricFamilies(&text)
	if err != nil || len(read) != 6 {
		t.Fatalf("%d families, %v", len(read), err)
	}
	if took := read["groundplan_took_us"]; len(took.GetMetric()) != 6 { // of eu and of all: one metric with a phase, and a timer without
		t.Errorf("groundplan_took_us has %d series", len(took.GetMetric()))
	}
	if read["groundplan_lookups_sum_value"] == nil {
		t.Errorf("a metric that is called like a part of another: %v", read)
	}
}

// FuzzPrometheus gives metrics any names: the parser of Prometheus reads the file, and finds every series once.
func FuzzPrometheus(f *testing.F) {
	f.Add("rtt", "rtt_sum", "eu")
	f.Add("a.b", "a-b", "x\"\\\n")
	f.Add("", "\xff", "ü")
	f.Fuzz(func(t *testing.T, one, other, group string) {
		if !utf8.ValidString(one + "|" + other) {
			return // JSON has no such names
		}
		var run Run
		all := []string{one, other, one + "_count"}
		slices.Sort(all)
		for _, metric := range slices.Compact(all) {
			run.Series = append(run.Series, metrics.Series{
				Label: metrics.Label{Metric: metric, Group: group}, Kind: metrics.KindValues, Summary: pipelines.Summary{Count: 1},
			})
		}
		var text bytes.Buffer
		if err := Prometheus(&text, run); err != nil {
			t.Fatal(err)
		}
		parser := expfmt.TextParser{}
		read, err := parser.TextToMetricFamilies(bytes.NewReader(text.Bytes()))
		if err != nil {
			t.Fatalf("%v in\n%s", err, &text)
		}
		seen := map[string]bool{}
		for name, family := range read {
			if !model.IsValidLegacyMetricName(name) {
				t.Errorf("%q is no name", name)
			}
			for _, m := range family.GetMetric() {
				key := name + fmt.Sprint(m.GetLabel())
				if seen[key] || len(m.GetSummary().GetQuantile()) != 6 {
					t.Errorf("%s: twice, or not whole, in\n%s", key, &text)
				}
				seen[key] = true
			}
		}
	})
}

func unzip(t *testing.T, body []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func base64Of(t *testing.T, text string) string {
	t.Helper()
	data, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
