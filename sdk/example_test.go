package sdk_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/groundplan/groundplan/sdk"
	"github.com/groundplan/groundplan/sdk/internal/syncserver"
)

// together runs a case in n instances at once, as groundplan would, and prints the exit statuses that aren't 0.
func together(n int, params string, body sdk.Case) {
	service := syncserver.New()
	defer service.Close()
	outputs, err := os.MkdirTemp("", "sdk-example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(outputs)
	host, port, _ := strings.Cut(service.Address(), ":")
	var work sync.WaitGroup
	for range n {
		env := map[string]string{
			"TEST_CASE": "example", "TEST_RUN": "r", "TEST_PLAN": "p", "TEST_GROUP_ID": "all",
			"TEST_INSTANCE_COUNT": fmt.Sprint(n), "TEST_GROUP_INSTANCE_COUNT": fmt.Sprint(n),
			"TEST_OUTPUTS_PATH": outputs, "TEST_TEMP_PATH": outputs, "GROUNDPLAN_PARAMS": params,
			"SYNC_SERVICE_HOST": host, "SYNC_SERVICE_PORT": port,
		}
		work.Go(func() {
			lookup := func(name string) (string, bool) { value, set := env[name]; return value, set }
			if status := sdk.Start(map[string]sdk.Case{"example": body}, lookup, io.Discard, os.Stdout); status != 0 {
				fmt.Println("exit status", status)
			}
		})
	}
	work.Wait()
}

// Every instance tells the others where it is, and the first one to come leads.
func Example() {
	type peer struct {
		Seq     int64
		Address string
	}
	const peers sdk.Topic[peer] = "peers"

	meet := func(ctx context.Context, run *sdk.Run) error {
		address, err := run.DataAddress()
		if err != nil {
			return err
		}
		if _, err := peers.Publish(ctx, run, peer{run.GlobalSeq, address.String()}); err != nil {
			return err
		}
		all, err := peers.Collect(ctx, run, run.Instances)
		if err != nil {
			return err
		}
		if run.GlobalSeq == 1 {
			slices.SortFunc(all, func(a, b peer) int { return int(a.Seq - b.Seq) })
			fmt.Println(all)
		}
		_, err = run.SignalAndWait(ctx, "met", run.Instances)
		return err
	}

	// func main() { sdk.Main(map[string]sdk.Case{"meet": meet}) }
	together(3, `{}`, meet)
	// Output: [{1 127.0.0.1} {2 127.0.0.1} {3 127.0.0.1}]
}

func ExampleParam() {
	together(1, `{"peers": "20", "wait": "1m30s", "block": "4Ki", "rate": "20Mbit"}`, func(ctx context.Context, run *sdk.Run) error {
		peers, err := sdk.Param[int](run, "peers")
		if err != nil {
			return err
		}
		wait, err := sdk.ParamOr(run, "wait", time.Minute)
		if err != nil {
			return err
		}
		block, err := sdk.Param[sdk.Size](run, "block")
		if err != nil {
			return err
		}
		fmt.Println(peers, wait, block)
		_, err = sdk.Param[time.Duration](run, "rate")
		fmt.Println(err)
		return nil
	})
	// Output:
	// 20 1m30s 4096
	// parameter rate is "20Mbit": it should be a duration like 80ms or 2m
}

func ExampleTopic_Subscribe() {
	const numbers sdk.Topic[int] = "numbers"
	together(2, `{}`, func(ctx context.Context, run *sdk.Run) error {
		if run.GlobalSeq == 1 {
			for n := range 5 {
				if _, err := numbers.Publish(ctx, run, n); err != nil {
					return err
				}
			}
			return nil
		}
		sum := 0
		for n, err := range numbers.Subscribe(ctx, run) {
			if err != nil {
				return err
			}
			if sum += n; n == 4 {
				break
			}
		}
		fmt.Println(sum)
		return nil
	})
	// Output: 10
}

func ExampleMetrics() {
	together(1, `{}`, func(ctx context.Context, run *sdk.Run) error {
		found := run.Results.Counter("blocks_found")
		for range 10 {
			began := time.Now()
			found.Add(1) // … what is measured
			if err := run.Results.Timer("lookup_seconds,from=eu", time.Since(began)); err != nil {
				return err
			}
		}
		return run.Results.Point("blocks_bytes", 4096)
	})
	// Output:
}

func ExampleRun_Go() {
	together(1, `{}`, func(ctx context.Context, run *sdk.Run) error {
		done := make(chan error, 1)
		run.Go(func() { done <- fmt.Errorf("the server stopped") })
		return <-done
	})
	// Output: exit status 1
}

// A span of one instance goes on in another: what belongs together is one trace.
func ExampleRun_Span() {
	const questions sdk.Topic[string] = "questions"
	together(2, `{}`, func(ctx context.Context, run *sdk.Run) (err error) {
		if run.GlobalSeq == 1 {
			ctx, span := run.Span(ctx, "lookup", sdk.Attr("key", "k1"))
			defer func() { span.End(err) }()
			_, err = questions.Publish(ctx, run, span.Traceparent())
			return err
		}
		asked, err := questions.Collect(ctx, run, 1)
		if err != nil {
			return err
		}
		ctx, err = sdk.ContinueTrace(ctx, asked[0])
		if err != nil {
			return err
		}
		_, span := run.Span(ctx, "answer")
		span.Event("found")
		span.End(nil)
		return nil
	})
	// Output:
}
