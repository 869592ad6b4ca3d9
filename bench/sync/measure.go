package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/testground/sdk-go/runtime"
	sdk "github.com/testground/sdk-go/sync"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A measurement is taken with all clients connected, and gives a number of milliseconds: smaller is better.
type measurement struct {
	name string
	take func(ctx context.Context, clients []*sdk.DefaultClient) (float64, error)
	goal float64 // how many times faster than the reference the gateway is asked to be
}

var measurements = []measurement{
	{"SignalAndWait of all, ms", signalAndWait, 10},
	{"publish → deliver p50, ms", publishDeliver, 50},
	{"all-to-all, ms", allToAll, 5},
}

// taken is what one round came to: the measurement itself, and the processor time of the server over the whole round
// (connections and the embedded Redis included). Clients and server share the machine's cores, so that the clients'
// own time bounds how much faster a server can look; its processor time tells what the server is answerable for.
type taken struct {
	ms, server float64
}

func measure(o options) error {
	if err := os.Setenv(sdk.EnvServiceHost, "127.0.0.1"); err != nil {
		return err
	}
	if err := os.Setenv(sdk.EnvServicePort, strconv.Itoa(port)); err != nil {
		return err
	}
	fmt.Printf("%d clients, %d rounds, reference and gateway in turn\n\n", o.clients, o.rounds)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tsync-service v0.1.0\tgateway\tratio (median)\tgoal\tserver CPU, ms\tserver CPU ratio\t")
	for _, m := range measurements {
		rounds := map[string][]taken{}
		for range o.rounds {
			for _, server := range []string{reference, gatewayServer} {
				t, err := round(o, server, m)
				if err != nil {
					return fmt.Errorf("%s with %s: %w", m.name, server, err)
				}
				rounds[server] = append(rounds[server], t)
			}
		}
		row(table, m, rounds[reference], rounds[gatewayServer])
	}
	return table.Flush()
}

// row prints the medians, and the median of the ratios round by round.
func row(table io.Writer, m measurement, theirs, ours []taken) {
	wall := func(t taken) float64 { return t.ms }
	server := func(t taken) float64 { return t.server }
	fmt.Fprintf(table, "%s\t%.2f\t%.2f\t%.1f×\t≥ %g×\t%.0f : %.0f\t%.1f×\t\n", m.name,
		medianOf(theirs, wall), medianOf(ours, wall), medianRatio(theirs, ours, wall), m.goal,
		medianOf(theirs, server), medianOf(ours, server), medianRatio(theirs, ours, server))
}

func medianOf(rounds []taken, figure func(taken) float64) float64 {
	values := make([]float64, len(rounds))
	for i, t := range rounds {
		values[i] = figure(t)
	}
	return median(values)
}

func medianRatio(theirs, ours []taken, figure func(taken) float64) float64 {
	values := make([]float64, len(theirs))
	for i := range theirs {
		values[i] = figure(theirs[i]) / figure(ours[i])
	}
	return median(values)
}

// lastWords is the clients' log, of which only what they say before they end this process is of interest.
var lastWords = zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.Lock(os.Stderr), zapcore.FatalLevel)).Sugar()

// round takes one measurement with a fresh server and fresh clients.
func round(o options, server string, m measurement) (t taken, err error) {
	stop, err := start(server)
	if err != nil {
		return taken{}, err
	}
	defer func() { t.server = stop() }()
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	ctx = sdk.WithRunParams(ctx, &runtime.RunParams{TestRun: "r", TestPlan: "bench", TestCase: "sync"})
	clients := make([]*sdk.DefaultClient, o.clients)
	for i := range clients {
		if clients[i], err = sdk.NewGenericClient(ctx, lastWords); err != nil {
			return taken{}, fmt.Errorf("connecting client %d: %w", i, err)
		}
	}
	ms, err := m.take(ctx, clients)
	// The clients are ended before the server is, and their context before their sockets: one whose socket ends in any
	// other way than by a whole goodbye ends this process, and on a busy machine its own Close is such a way.
	cancel()
	var closing sync.WaitGroup
	for _, c := range clients {
		closing.Go(func() { _ = c.Close() })
	}
	closing.Wait()
	return taken{ms: ms}, err
}

func signalAndWait(ctx context.Context, clients []*sdk.DefaultClient) (float64, error) {
	return together(len(clients), func(i int) error {
		_, err := clients[i].SignalAndWait(ctx, "all", len(clients))
		return err
	})
}

// publishDeliver sends items one by one, ten milliseconds apart, from one client to another, while the others idle.
func publishDeliver(ctx context.Context, clients []*sdk.DefaultClient) (float64, error) {
	topic := sdk.NewTopic("delivery", "")
	arrived := make(chan string, 1)
	if _, err := clients[0].Subscribe(ctx, topic, arrived); err != nil {
		return 0, err
	}
	var took []float64
	for i := range 100 {
		sent := time.Now()
		if _, err := clients[len(clients)-1].Publish(ctx, topic, strconv.Itoa(i)); err != nil {
			return 0, err
		}
		select {
		case <-arrived:
			took = append(took, milliseconds(time.Since(sent)))
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return median(took), nil
}

// allToAll has every client publish one item and receive those of all.
func allToAll(ctx context.Context, clients []*sdk.DefaultClient) (float64, error) {
	topic := sdk.NewTopic("everybody", "")
	return together(len(clients), func(i int) error {
		received := make(chan string, len(clients))
		if _, _, err := clients[i].PublishSubscribe(ctx, topic, "client "+strconv.Itoa(i), received); err != nil {
			return err
		}
		for n := range len(clients) {
			select {
			case <-received:
			case <-ctx.Done():
				return fmt.Errorf("client %d received %d of %d: %w", i, n, len(clients), ctx.Err())
			}
		}
		return nil
	})
}

// together runs n calls at once and gives the milliseconds from the first start to the last end.
func together(n int, call func(int) error) (float64, error) {
	var all sync.WaitGroup
	errs := make([]error, n)
	began := time.Now()
	for i := range n {
		all.Go(func() { errs[i] = call(i) })
	}
	all.Wait()
	took := milliseconds(time.Since(began))
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return took, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
