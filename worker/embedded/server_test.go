package embedded

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const token = "a-token"

type header string

func (h header) GetHeaders(context.Context) (map[string]string, error) {
	if h == "" {
		return nil, nil
	}
	return map[string]string{"authorization": string(h)}, nil
}

// quiet drops what the SDK says.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

func options(folder string, attributes ...string) Options {
	return Options{Folder: folder, Namespace: "default", Attributes: attributes, Retention: 48 * time.Hour, Token: token}
}

func begin(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func connect(t testing.TB, address, authorization string) client.Client {
	t.Helper()
	c, err := client.NewLazyClient(client.Options{HostPort: address, HeadersProvider: header(authorization), Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func hello(ctx workflow.Context, name string) (string, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	var greeting string
	err := workflow.ExecuteActivity(ctx, "greet", name).Get(ctx, &greeting)
	return greeting, err
}

func greet(_ context.Context, name string) (string, error) { return "hello " + name, nil }

func startWorker(t testing.TB, c client.Client) {
	t.Helper()
	w := sdkworker.New(c, "queue", sdkworker.Options{})
	w.RegisterWorkflow(hello)
	w.RegisterActivity(greet)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
}

// The server runs workflows, keeps them over a restart on the same file, and comes to have attributes it was made without.
func TestServerKeepsWhatItRan(t *testing.T) {
	folder := t.TempDir()
	first := begin(t, options(folder, "Colour"))
	c := connect(t, first.Address(), "Bearer "+token)
	t.Run("runs", func(t *testing.T) {
		startWorker(t, c)
		run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID: "greeting", TaskQueue: "queue",
			TypedSearchAttributes: temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword("Colour").ValueSet("red")),
		}, hello, "you")
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := run.Get(t.Context(), &got); err != nil || got != "hello you" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}

	second := begin(t, options(folder, "Colour", "Shape"))
	defer second.Stop()
	c = connect(t, second.Address(), "Bearer "+token)
	var got string
	if err := c.GetWorkflow(t.Context(), "greeting", "").Get(t.Context(), &got); err != nil || got != "hello you" {
		t.Errorf("after a restart the result is %q, %v", got, err)
	}
	there, err := c.OperatorService().ListSearchAttributes(t.Context(), &operatorservice.ListSearchAttributesRequest{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Colour", "Shape"} {
		if there.GetCustomAttributes()[name] != enumspb.INDEXED_VALUE_TYPE_KEYWORD {
			t.Errorf("there is no keyword %s among %v", name, there.GetCustomAttributes())
		}
	}
	namespace, err := c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if kept := namespace.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); kept != 48*time.Hour {
		t.Errorf("ended runs are kept for %v", kept)
	}
}

func TestServerRefusesStrangers(t *testing.T) {
	s := begin(t, options(t.TempDir()))
	defer s.Stop()
	for name, shown := range map[string]string{"no token": "", "another token": "Bearer other", "no scheme": token} {
		t.Run(name, func(t *testing.T) {
			_, err := connect(t, s.Address(), shown).WorkflowService().ListOpenWorkflowExecutions(t.Context(),
				&workflowservice.ListOpenWorkflowExecutionsRequest{Namespace: "default"})
			if err == nil {
				t.Fatal("was let in")
			}
			t.Log(err)
		})
	}
	t.Run("every other port", func(t *testing.T) {
		ports := listening(t)
		_, own, _ := net.SplitHostPort(s.Address())
		ports = slices.DeleteFunc(ports, func(p string) bool { return p == own })
		if len(ports) < 3 {
			t.Fatalf("expected the ports of the inner services, found %v", ports)
		}
		for _, port := range ports {
			connection, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err = workflowservice.NewWorkflowServiceClient(connection).GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{})
			cancel()
			connection.Close()
			if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
				t.Errorf("port %s spoke with a stranger: %v", port, err)
			}
		}
	})
}

// listening gives the loopback ports that this process listens on.
func listening(t *testing.T) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Skipf("can't list this process's ports: %v", err)
	}
	inodes := map[string]bool{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			inodes[target] = true
		}
	}
	var ports []string
	for line := range bytesLines(table) {
		if len(line) > 9 && line[3] == "0A" && inodes["socket:["+line[9]+"]"] {
			var ip, port uint32
			if _, err := fmt.Sscanf(line[1], "%X:%X", &ip, &port); err != nil {
				t.Fatal(err)
			}
			ports = append(ports, fmt.Sprint(port))
		}
	}
	return ports
}

func TestStartNeedsAToken(t *testing.T) {
	if _, err := Start(t.Context(), Options{Folder: t.TempDir(), Namespace: "default"}); err == nil {
		t.Fatal("started without a token")
	}
}

// A kill in the first start leaves a side file at most: the next start begins it anew.
func TestDatabaseIsMadeWholeOrNotAtAll(t *testing.T) {
	folder := t.TempDir()
	statements, hash, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	if len(statements) < 20 {
		t.Fatalf("the schema has only %d statements", len(statements))
	}
	path := filepath.Join(folder, "temporal-"+hash+".db")
	for _, leftover := range []string{path + ".new", path + ".new-journal"} {
		if err := os.WriteFile(leftover, []byte("half a database"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := makeDatabase(path, append(slices.Clone(statements), "CREATE NONSENSE")); err == nil {
		t.Error("a broken schema was taken")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a half-made database has the name of a whole one")
	}
	database, err := openDatabase(folder)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(database.DatabaseName)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the database may be opened by others: %v", info.Mode())
	}
}

func BenchmarkStart(b *testing.B) {
	for _, kind := range []string{"first", "again"} {
		b.Run(kind, func(b *testing.B) {
			folder := b.TempDir()
			for b.Loop() {
				if kind == "first" {
					folder = b.TempDir()
				}
				s := begin(b, options(folder, "Colour"))
				b.StopTimer()
				began := time.Now()
				if err := s.Stop(); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-to-stop")
				b.StartTimer()
			}
		})
	}
}
