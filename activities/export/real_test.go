package export

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// programs is where `go tool task setup` unpacks what Debian has of them.
const programs = "../../bin/debian/usr/bin"

// start starts a real server on a port of this machine, and returns its address. arguments are made of that port.
func start(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		if program, err = exec.LookPath(filepath.Join(programs, name)); err != nil {
			t.Skipf("%s is not here: `go tool task setup` gets it where there is apt-get", name)
		}
		if program, err = filepath.Abs(program); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, append(arguments, "--web.listen-address="+address)...)
	command.Dir = t.TempDir()
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("%s says:\n%s", name, said.String())
		}
	})
	for range 300 {
		if response, err := http.Get("http://" + address + "/-/ready"); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return "http://" + address
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s is not ready after half a minute", name)
	return ""
}

func read(t *testing.T, address string) string {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %.300s %v", address, response.Status, body, err)
	}
	return string(body)
}

// TestRunningPushgateway pushes to a real one, twice, and has it show every sample of the second push and none of the first.
func TestRunningPushgateway(t *testing.T) {
	address := start(t, "prometheus-pushgateway")
	run := sampleRun(t)
	run.Cell = map[string]any{"path": "a/b", "x": "ü ?#"}
	run.ID = "first"
	if err := hasty(t, Targets{}).prometheus(t.Context(), address, run); err != nil {
		t.Fatal(err)
	}
	run.ID = "second"
	if err := hasty(t, Targets{}).prometheus(t.Context(), address, run); err != nil {
		t.Fatal(err)
	}
	shown := read(t, address+"/metrics")
	for _, f := range families(run) {
		for _, s := range f.samples {
			if got := strings.Count(shown, "\n"+s.name+"{"); got < 1 {
				t.Errorf("%s isn't shown", s.name)
			}
		}
	}
	if strings.Contains(shown, `run="first"`) || !strings.Contains(shown, `instance="dht path=a/b x=ü ?#",job="groundplan"`) ||
		strings.Count(shown, `run="second"`) != count(run) {
		t.Errorf("shown:\n%.2000s", shown)
	}
}

func count(run Run) int {
	n := 0
	for _, f := range families(run) {
		n += len(f.samples)
	}
	return n
}

// query asks a Prometheus, until it knows series.
func query(t *testing.T, address, text string) []json.RawMessage {
	t.Helper()
	for range 50 {
		var answer struct {
			Data struct{ Result []json.RawMessage }
		}
		if err := json.Unmarshal([]byte(read(t, address+"/api/v1/query?query="+url.QueryEscape(text))), &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Data.Result) > 0 {
			return answer.Data.Result
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// TestRunningPrometheus sends to a real one by remote write, twice the same.
func TestRunningPrometheus(t *testing.T) {
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(config, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	address := start(t, "prometheus", "--config.file="+config, "--storage.tsdb.path=data", "--web.enable-remote-write-receiver")
	run := sampleRun(t)
	run.Started, run.Ended = time.Now().Add(-time.Minute), time.Now()
	for range 2 {
		if err := hasty(t, Targets{}).prometheus(t.Context(), address+"/api/v1/write", run); err != nil {
			t.Fatal(err)
		}
	}
	if got := query(t, address, `{job="groundplan",run="`+run.ID+`"}`); len(got) != count(run) {
		t.Errorf("%d series, want %d", len(got), count(run))
	}
	got := query(t, address, `groundplan_rtt_seconds{run="`+run.ID+`",group="us",quantile="0.99",phase="during"}`)
	if len(got) != 1 || !strings.HasSuffix(string(got[0]), `"2"]}`) {
		t.Errorf("got %s", got)
	}
}
