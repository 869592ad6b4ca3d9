package elasticsearch

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/internal/elasticserver"
	"github.com/groundplan/groundplan/runs"
)

// BenchmarkElasticsearch pushes the logs of 50 instances, GROUNDPLAN_BENCH_MB (default 200) together, in a process of its own
// whose memory is measured, and has curl send the same documents to another index: one request after the other, and two at
// a time. It ends with reading back every line.
func BenchmarkElasticsearch(b *testing.B) {
	s := elasticserver.Start(b)
	const instances = 50
	mb := 200
	if asked, err := strconv.Atoi(os.Getenv("GROUNDPLAN_BENCH_MB")); err == nil {
		mb = asked
	}
	o := run(b, nil)
	o.Input.Deadline = time.Now().Add(time.Hour)
	lines := 0
	for i := range instances {
		lines += makeLog(b, filepath.Join(o.Folder.Outputs("eu", i), "run.out"), uint64(i), mb*1_000_000/instances)
	}
	requests := curlRequests(b, o)
	report := func(name string, took time.Duration) {
		b.ReportMetric(float64(mb)/took.Seconds(), name+"-MB/s") // of the last round
		fmt.Fprintf(os.Stderr, "%s: %.1f MB/s\n", name, float64(mb)/took.Seconds())
	}
	for n := range b.N {
		for parallel := 1; parallel <= 2; parallel++ {
			index := fmt.Sprintf("curl-%d-%d", n, parallel)
			prepared(b, s, index)
			started := time.Now()
			list, err := filepath.Glob(filepath.Join(requests, "*"))
			if err != nil {
				b.Fatal(err)
			}
			cmd := exec.Command("xargs", "-P", strconv.Itoa(parallel), "-I{}", "curl", "-sS", "-o", "/dev/null", "-H", "Content-Type: application/x-ndjson",
				"--data-binary", "@{}", s.URL+"/"+index+"/_bulk")
			cmd.Stdin = strings.NewReader(strings.Join(list, "\n"))
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("curl: %v: %s", err, out)
			}
			report(fmt.Sprintf("curl%d", parallel), time.Since(started))
			if got := s.Count(index, object{"term": object{"kind": kindLog}}); got != lines {
				b.Fatalf("curl sent %d of %d lines", got, lines)
			}
			s.Ask("DELETE", "/"+index, nil)
		}
		o.Index = fmt.Sprintf("push-%d", n)
		prepared(b, s, o.Index)
		started := time.Now()
		out := pushElsewhere(b, s, o)
		took := time.Since(started)
		report("push", took)
		fmt.Fprintf(os.Stderr, "peak: %.0f MiB\n", peak(b, out)/(1<<20))
		b.ReportMetric(peak(b, out)/(1<<20), "peak-MiB")
		b.ReportMetric(float64(lines)/took.Seconds(), "lines/s")
	}
	if got := s.Count(o.Index, object{"term": object{"kind": kindLog}}); got != lines {
		b.Errorf("%d of %d lines are there", got, lines)
	}
	for i := range instances {
		if err := sameLog(s, o, i); err != nil {
			b.Error(err)
		}
	}
}

// prepared makes an index ready, so that neither side pays for it.
func prepared(b *testing.B, s *elasticserver.Server, index string) {
	b.Helper()
	conn, err := Server{URL: s.URL}.connect(newPace(usual, func(string) {}))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.close()
	if _, err := conn.prepare(b.Context(), index); err != nil {
		b.Fatal(err)
	}
}

// makeLog writes a log as plans write them: most lines plain, some of Testground's events.
func makeLog(b *testing.B, path string, seed uint64, size int) (lines int) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	random := rand.New(rand.NewPCG(seed, 1))
	out := bufio.NewWriter(file)
	for written := 0; written < size; lines++ {
		moment := at(30 * float64(written) / float64(size))
		var n int
		if lines%4 == 0 {
			n, _ = fmt.Fprintf(out, `{"ts":%d,"msg":"","group_id":"eu","run_id":"run-1","event":{"message_event":{"message":"found %x after %d hops in %dms"}}}`+"\n",
				moment.UnixNano(), random.Uint64(), random.IntN(20), random.IntN(900))
		} else {
			n, _ = fmt.Fprintf(out, "%s DEBUG dht/query.go:%d looked up peer %x at /ip4/10.%d.%d.%d/tcp/4001: dial backoff, %d of %d peers answered, next is %x\n",
				moment.Format(time.RFC3339Nano), random.IntN(900), random.Uint64(), random.IntN(256), random.IntN(256), random.IntN(256), random.IntN(20), 20, random.Uint64())
		}
		written += n
	}
	if err := out.Flush(); err != nil {
		b.Fatal(err)
	}
	return lines
}

// curlRequests writes what a push sends, a request a file.
func curlRequests(b *testing.B, o Order) string {
	b.Helper()
	folder := b.TempDir()
	p := &push{limits: usual, Order: o, folder: o.Folder, groups: map[string]bool{}}
	if err := p.begin(); err != nil {
		b.Fatal(err)
	}
	defer p.outputs.root.Close()
	requests := 0
	current := &batch{}
	write := func() {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%06d", requests)), current.body, 0o600); err != nil {
			b.Fatal(err)
		}
		requests++
		current.reset(requests)
	}
	err := p.outputs.read(b.Context(), p.writer, position{}, func(d document, at position) error {
		if current.add(d, at, 0); len(current.body) >= p.batchBytes || len(current.items) >= p.batchDocuments {
			write()
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	write()
	return folder
}

// elsewhere asks the test binary to do nothing but push.
const elsewhere = "GROUNDPLAN_TEST_PUSH"

// pushElsewhere pushes in another process, and returns what it says.
func pushElsewhere(b *testing.B, s *elasticserver.Server, o Order) string {
	b.Helper()
	if err := runs.WriteJSON(filepath.Join(string(o.Folder), "order.json"), o); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), elsewhere+"="+s.URL+" "+filepath.Join(string(o.Folder), "order.json"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// pushOnly is what pushElsewhere's process does: it pushes, and says what memory it took.
func pushOnly(asked string) error {
	url, path, _ := strings.Cut(asked, " ")
	var o Order
	if err := runs.ReadJSON(path, &o); err != nil {
		return err
	}
	out, err := Server{URL: url}.Push(context.Background(), o, func(string) {})
	if err != nil || out.Reason != "" {
		return fmt.Errorf("%+v, %w", out, err)
	}
	status, err := os.ReadFile("/proc/self/status")
	fmt.Printf("%s", status)
	return err
}

// peak is the largest resident set that a process has said it had, in bytes.
func peak(b *testing.B, out string) float64 {
	b.Helper()
	_, after, ok := strings.Cut(out, "VmHWM:")
	if !ok {
		b.Fatalf("no memory was measured: %s", out)
	}
	kib, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib * 1024
}
