// Package elasticserver starts a real Elasticsearch for tests: one node on loopback, of the jars on Maven Central, in a
// process of its own that can be killed and started again on the same data.
//
// It runs where GROUNDPLAN_ELASTICSEARCH_SERVER=1 says so (`go tool task test:elasticsearch` does): it needs Java 17, Maven,
// 1 GiB of memory, and minutes the first time.
package elasticserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Variable is the environment variable that asks for tests with a real server.
const Variable = "GROUNDPLAN_ELASTICSEARCH_SERVER"

// Server is a running Elasticsearch.
type Server struct {
	// URL is its address; it stays the same over restarts.
	URL string

	t        testing.TB
	home     string
	data     string
	log      string
	settings []string
	process  *exec.Cmd
	stdin    io.Closer
	exited   chan struct{}
}

var built = sync.OnceValues(build)

// Start starts a server that the test's end stops, with settings of elasticsearch.yml (`name=value`). It skips the test
// where nobody asked for a real server.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	return StartIn(t, t.TempDir(), settings...)
}

// StartIn is Start with the server's data in a folder that the test chose.
func StartIn(t testing.TB, data string, settings ...string) *Server {
	t.Helper()
	if os.Getenv(Variable) == "" {
		t.Skipf("a real Elasticsearch is started only with %s=1: `go tool task test:elasticsearch`", Variable)
	}
	for _, program := range []string{"java", "javac", "mvn"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("a real Elasticsearch needs %s: %v", program, err)
		}
	}
	home, err := built()
	if err != nil {
		t.Fatal(err)
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{URL: "http://127.0.0.1:" + strconv.Itoa(port), t: t, home: home, data: data, settings: settings,
		log: filepath.Join(t.TempDir(), "elasticsearch.log")}
	t.Cleanup(s.Kill)
	s.Restart()
	return s
}

// Kill kills the server, as a power cut would; its data stay.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill()
	<-s.exited
	_ = s.stdin.Close()
	s.process = nil
}

// Launch starts the server again, on the same port and data, and doesn't wait for it.
func (s *Server) Launch() {
	s.t.Helper()
	s.Kill()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	args := []string{
		"-Xms1g", "-Xmx1g", "--module-path", filepath.Join(s.home, "lib"), "--add-modules=org.elasticsearch.server,ALL-MODULE-PATH",
		"-cp", filepath.Join(s.home, "classes"), "Server", s.home, s.data, s.URL[strings.LastIndexByte(s.URL, ':')+1:],
	}
	cmd := exec.Command("java", append(args, s.settings...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("starting Elasticsearch: %v", err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	s.process, s.exited = cmd, exited
}

// Restart starts the server again, as Launch does, and waits until it answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.Launch()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		// Yellow: a single node has no place for replicas, and the shards that are here are ready.
		status, _, err := s.do(http.MethodGet, "/_cluster/health?wait_for_status=yellow&timeout=60s", nil)
		if err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-s.exited:
			s.t.Fatalf("Elasticsearch ended: %s", s.said())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("Elasticsearch does not answer (status %d, %v): %s", status, err, s.said())
		}
	}
}

// Ask sends a request, with body as JSON where there is one, and returns the answer's; a status of 300 and more fails the
// test.
func (s *Server) Ask(method, path string, body any) map[string]any {
	s.t.Helper()
	status, answer, err := s.do(method, path, body)
	if err != nil || status >= 300 {
		s.t.Fatalf("%s %s: status %d, %v: %s", method, path, status, err, answer)
	}
	var out map[string]any
	if err := json.Unmarshal(answer, &out); err != nil {
		s.t.Fatalf("%s %s: %v: %s", method, path, err, answer)
	}
	return out
}

// Count is how many documents an index has that a query (of the query DSL; nil: all) finds.
func (s *Server) Count(index string, query any) int {
	s.t.Helper()
	s.Ask(http.MethodPost, "/"+index+"/_refresh", nil)
	var body any
	if query != nil {
		body = map[string]any{"query": query}
	}
	return int(s.Ask(http.MethodPost, "/"+index+"/_count", body)["count"].(float64))
}

func (s *Server) do(method, path string, body any) (int, []byte, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(data)
	}
	request, err := http.NewRequest(method, s.URL+path, content)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// said is the end of what the server said.
func (s *Server) said() string {
	data, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4000):])
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
