package sdk

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sdk/internal/syncserver"
)

// instance is one to be started in a test.
type instance struct {
	t      testing.TB
	env    map[string]string
	stdout lockedBuffer
	stderr lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const prefix = "run:r1:plan:p:case:c:"

func newServer(t testing.TB) *syncserver.Server {
	s := syncserver.New()
	t.Cleanup(s.Close)
	return s
}

// newInstance has the environment of Testground's contract, with changes laid over it.
func newInstance(t testing.TB, s *syncserver.Server, changes map[string]string) *instance {
	host, port, _ := strings.Cut(s.Address(), ":")
	env := map[string]string{
		"TEST_PLAN": "p", "TEST_CASE": "c", "TEST_RUN": "r1", "TEST_GROUP_ID": "g", "TEST_INSTANCE_COUNT": "1",
		"TEST_GROUP_INSTANCE_COUNT": "1", "TEST_OUTPUTS_PATH": t.TempDir(), "TEST_TEMP_PATH": t.TempDir(),
		"SYNC_SERVICE_HOST": host, "SYNC_SERVICE_PORT": port, "HOSTNAME": "g-0",
	}
	maps.Copy(env, changes)
	return &instance{t: t, env: env}
}

func (i *instance) lookup(name string) (string, bool) {
	value, set := i.env[name]
	return value, set
}

// play runs the instance with one case, c, and returns its exit status.
func (i *instance) play(body Case) int {
	return start(map[string]Case{"c": body}, i.lookup, &i.stdout, &i.stderr)
}

// events are those written to a file of the outputs.
func (i *instance) events() (events []map[string]json.RawMessage) {
	i.t.Helper()
	text := i.output("run.out")
	if text != i.stdout.String() {
		i.t.Errorf("run.out and stdout differ:\n%s\n%s", text, i.stdout.String())
	}
	for line := range strings.Lines(text) {
		var l struct {
			TS    int64                      `json:"ts"`
			Group string                     `json:"group_id"`
			Run   string                     `json:"run_id"`
			Event map[string]json.RawMessage `json:"event"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.TS == 0 || l.Group != i.env["TEST_GROUP_ID"] || l.Run != "r1" || len(l.Event) != 1 {
			i.t.Errorf("not an event: %s (%v)", line, err)
		}
		events = append(events, l.Event)
	}
	return events
}

func (i *instance) output(name string) string {
	i.t.Helper()
	text, err := os.ReadFile(filepath.Join(i.env["TEST_OUTPUTS_PATH"], name))
	if err != nil {
		i.t.Error(err)
	}
	return string(text)
}

// joined is a run that is connected, for tests of single calls.
func joined(t testing.TB, s *syncserver.Server, reach time.Duration) *Run {
	t.Helper()
	env, err := readEnvironment(newInstance(t, s, map[string]string{"TEST_SIDECAR": "true"}).lookup)
	if err != nil {
		t.Fatal(err)
	}
	run := &Run{Environment: env, conn: connect(s.Address(), reach)}
	t.Cleanup(run.conn.close)
	return run
}
