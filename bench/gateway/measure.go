package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// A measurement takes one round with all clients connected. n is a number of the round's own, for names that nothing
// else uses.
type measurement struct {
	name string
	take func(ctx context.Context, s *swarm, n int) (figures, error)
}

// figures are how long each client waited in one round, sorted.
type figures []time.Duration

func (f figures) at(share float64) time.Duration {
	return f[min(len(f)-1, int(share*float64(len(f))))]
}

var measurements = []measurement{
	{"barrier: 9,999 wait, the last one signals", lastSignals},
	{"barrier: all signal and wait at once", func(ctx context.Context, s *swarm, n int) (figures, error) {
		return arrive(ctx, s, n, 0)
	}},
	{"barrier: all arrive within 1 s", func(ctx context.Context, s *swarm, n int) (figures, error) {
		return arrive(ctx, s, n, time.Second)
	}},
	{"barrier: all arrive within 10 s", func(ctx context.Context, s *swarm, n int) (figures, error) {
		return arrive(ctx, s, n, 10*time.Second)
	}},
	{"signal_entry: one client after the other", oneByOne},
	{"publish of one item to all subscribers", fanOut},
}

func measure(ctx context.Context, folder string) error {
	redisSocket, redis, err := startRedis(folder)
	if err != nil {
		return err
	}
	defer end(redis)
	sockets, nodes, stdin, err := startNodes(o.nodes, redisSocket, folder)
	if err != nil {
		return err
	}
	defer func() {
		_ = stdin.Close() // it ends by itself then, and writes its profile
		_ = nodes.Wait()
	}()
	began := time.Now()
	s, err := connect(o.clients, sockets)
	if err != nil {
		return err
	}
	defer s.close()
	fmt.Printf("%d clients on %d gateways, connected in %.1f s; %d processors for all\n\n", o.clients, o.nodes, time.Since(began).Seconds(), runtime.NumCPU())
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "ms, median of the rounds (worst)\tp50\tp99\tmost\tCPU ms: gateways\tRedis\tclients\tmessages of Redis\t")
	used := usage{nodes: nodes.Process.Pid, redis: redis.Process.Pid, socket: redisSocket}
	n := 0
	for _, m := range measurements {
		var rounds []figures
		before, err := used.now(ctx)
		if err != nil {
			return err
		}
		for range o.rounds {
			n++
			f, err := round(ctx, s, m, n)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", m.name, len(rounds)+1, err)
			}
			rounds = append(rounds, f)
		}
		after, err := used.now(ctx)
		if err != nil {
			return err
		}
		row(table, m.name, rounds, after.since(before))
		if err := table.Flush(); err != nil {
			return err
		}
	}
	connections, err := redisClients(ctx, redisSocket)
	if err != nil {
		return err
	}
	fmt.Printf("\nRedis sees %d connections of %d gateways.\n", connections, o.nodes)
	return nil
}

func round(ctx context.Context, s *swarm, m measurement, n int) (figures, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	f, err := m.take(ctx, s, n)
	if err != nil {
		return nil, err
	}
	// What the round leaves behind (replies on their way, garbage) is not the next one's.
	time.Sleep(300 * time.Millisecond)
	return f, nil
}

func row(table *tabwriter.Writer, name string, rounds []figures, spent spent) {
	fmt.Fprintf(table, "%s\t", name)
	for _, share := range []float64{0.5, 0.99, 1} {
		values := make([]time.Duration, len(rounds))
		for i, f := range rounds {
			values[i] = f.at(share)
		}
		slices.Sort(values)
		fmt.Fprintf(table, "%.1f (%.1f)\t", milliseconds(values[len(values)/2]), milliseconds(values[len(values)-1]))
	}
	per := float64(len(rounds))
	fmt.Fprintf(table, "%.0f\t%.0f\t%.0f\t%.0f\t\n", milliseconds(spent.nodes)/per, milliseconds(spent.redis)/per,
		milliseconds(spent.clients)/per, float64(spent.messages)/per)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// wait waits until done is closed.
func wait(ctx context.Context, s *swarm, done <-chan struct{}, how func() string) error {
	select {
	case <-done:
		return nil
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", how(), ctx.Err())
	}
}

// The ids of requests: what a client may have open at a time differs, and rounds differ, so that a reply of an earlier
// round is noticed.
const (
	kindSignal = iota
	kindBarrier
	kindPublish
	kindSubscribe
	kinds
)

func idOf(n, kind int) int { return n*kinds + kind }

func signalBody(state string) string { return `"signal_entry":{"state":` + strconv.Quote(state) + `}` }

func barrierBody(state string, target int) string {
	return `"barrier":{"state":` + strconv.Quote(state) + `,"target":` + strconv.Itoa(target) + `}`
}

func stateOf(n int) string { return fmt.Sprintf("run:bench:plan:gateway:case:all:states:round-%d", n) }

// arrival is a round in which every client signals and waits for all, as SignalAndWait of the SDK does it: the barrier
// is asked for when the signal has been answered.
type arrival struct {
	s       *swarm
	n       int
	barrier []byte
	// last is when the last signal was sent, as nanoseconds since began; 0 while there is one to come.
	began    time.Time
	last     atomic.Int64
	released []time.Duration // by client, since began
	left     int
	done     chan struct{}
}

func (s *swarm) arrival(n int) *arrival {
	a := &arrival{s: s, n: n, began: time.Now(), released: make([]time.Duration, len(s.clients)), left: len(s.clients), done: make(chan struct{})}
	a.barrier = request(idOf(n, kindBarrier), barrierBody(stateOf(n), len(s.clients)))
	s.hear(a.heard)
	return a
}

func (a *arrival) heard(c *client, id int, _ []byte, at time.Time) {
	switch id {
	case idOf(a.n, kindSignal):
		a.s.send(c, a.barrier)
	case idOf(a.n, kindBarrier):
		if a.last.Load() == 0 {
			a.s.fail(fmt.Errorf("client %d was let go before the last one signalled", c.number))
			return
		}
		if a.released[c.number] != 0 {
			a.s.fail(fmt.Errorf("client %d was let go twice", c.number))
			return
		}
		a.released[c.number] = at.Sub(a.began)
		if a.left--; a.left == 0 {
			close(a.done)
		}
	default:
		a.s.fail(fmt.Errorf("client %d got a reply to %d, which it didn't ask", c.number, id))
	}
}

// signal sends the signals of some clients, evenly over a time; the last of all clients' is to be among the last ones
// sent.
func (a *arrival) signal(ctx context.Context, clients []*client, over time.Duration, last bool) error {
	began := time.Now()
	frame := request(idOf(a.n, kindSignal), signalBody(stateOf(a.n)))
	for i, c := range clients {
		due := time.Duration(float64(over) * float64(i) / float64(len(clients)))
		if ahead := due - time.Since(began); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if last && i == len(clients)-1 {
			a.last.Store(max(1, int64(time.Since(a.began))))
		}
		a.s.send(c, frame)
	}
	return nil
}

// waits are how long each client waited from the last signal on.
func (a *arrival) waits() figures {
	last := time.Duration(a.last.Load())
	f := make(figures, len(a.released))
	for i, at := range a.released {
		f[i] = at - last
	}
	slices.Sort(f)
	return f
}

func (a *arrival) wait(ctx context.Context) (figures, error) {
	// left belongs to the reading thread: what is told of it after a timeout is only near the truth.
	err := wait(ctx, a.s, a.done, func() string { return "not all clients were let go" })
	if err != nil {
		return nil, err
	}
	return a.waits(), nil
}

// arrive has all clients signal and wait, spread over a time.
func arrive(ctx context.Context, s *swarm, n int, over time.Duration) (figures, error) {
	a := s.arrival(n)
	if err := a.signal(ctx, shuffled(s.clients, n), over, true); err != nil {
		return nil, err
	}
	return a.wait(ctx)
}

// lastSignals has all but one wait at the barrier before that one signals.
func lastSignals(ctx context.Context, s *swarm, n int) (figures, error) {
	a := s.arrival(n)
	order := shuffled(s.clients, n)
	if err := a.signal(ctx, order[1:], 0, false); err != nil {
		return nil, err
	}
	select { // what is under way comes to rest
	case <-time.After(time.Duration(len(order)) * 150 * time.Microsecond):
	case err := <-s.failed:
		return nil, err
	}
	if err := a.signal(ctx, order[:1], 0, true); err != nil {
		return nil, err
	}
	return a.wait(ctx)
}

// shuffled is the clients in an order that has nothing to do with their nodes, the same for the same n.
func shuffled(clients []*client, n int) []*client {
	order := slices.Clone(clients)
	x := uint64(n)*0x9e3779b97f4a7c15 + 1
	for i := len(order) - 1; i > 0; i-- {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		j := int(x % uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// oneByOne has a thousand clients signal, each after the one before has its answer.
func oneByOne(ctx context.Context, s *swarm, n int) (figures, error) {
	answered := make(chan time.Time, 1)
	s.hear(func(_ *client, _ int, _ []byte, at time.Time) { answered <- at })
	frame := request(idOf(n, kindSignal), signalBody(stateOf(n)))
	var f figures
	for _, c := range shuffled(s.clients, n)[:min(1000, len(s.clients))] {
		sent := time.Now()
		s.send(c, frame)
		select {
		case at := <-answered:
			f = append(f, at.Sub(sent))
		case err := <-s.failed:
			return nil, err
		case <-ctx.Done():
			return nil, fmt.Errorf("signal %d was not answered: %w", len(f)+1, ctx.Err())
		}
	}
	slices.Sort(f)
	return f, nil
}

// fanOut has all clients subscribe, and one publish ten items, each when all have the one before; what is measured is
// each delivery.
func fanOut(ctx context.Context, s *swarm, n int) (figures, error) {
	const items = 10
	topic := strconv.Quote(fmt.Sprintf("run:bench:plan:gateway:case:all:topics:round-%d", n))
	var f figures
	var sent time.Time
	left := len(s.clients)
	all := make(chan struct{}, 1)
	s.hear(func(_ *client, id int, _ []byte, at time.Time) {
		if id != idOf(n, kindSubscribe) {
			return // the publisher's own answer
		}
		f = append(f, at.Sub(sent))
		if left--; left == 0 {
			all <- struct{}{}
		} else if left < 0 {
			s.fail(errors.New("an item was delivered more often than there are subscribers"))
		}
	})
	subscribe := request(idOf(n, kindSubscribe), `"subscribe":{"topic":`+topic+`}`)
	for _, c := range s.clients {
		s.send(c, subscribe)
	}
	time.Sleep(500 * time.Millisecond)
	for i := range items {
		// The reading thread is quiet now: whatever it had to read, it has.
		left = len(s.clients)
		sent = time.Now()
		s.send(s.clients[(n*31+i)%len(s.clients)], request(idOf(n, kindPublish), `"publish":{"topic":`+topic+`,"payload":{"item":`+strconv.Itoa(i)+`}}`))
		if err := wait(ctx, s, all, func() string { return fmt.Sprintf("item %d did not reach all", i+1) }); err != nil {
			return nil, err
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, c := range s.clients {
		s.send(c, cancelRequest(idOf(n, kindSubscribe)))
	}
	slices.Sort(f)
	return f, nil
}

// usage reads what the processes have used of the processor so far.
type usage struct {
	nodes, redis int
	socket       string
}

// spent is processor time, and the messages that Redis has passed on to gateways.
type spent struct {
	nodes, redis, clients time.Duration
	messages              int64
}

func (a spent) since(b spent) spent {
	return spent{a.nodes - b.nodes, a.redis - b.redis, a.clients - b.clients, a.messages - b.messages}
}

func (u usage) now(ctx context.Context) (spent, error) {
	nodes, err1 := processorTime(u.nodes)
	redis, err2 := processorTime(u.redis)
	messages, err3 := published(ctx, u.socket)
	var own unix.Rusage
	err4 := unix.Getrusage(unix.RUSAGE_SELF, &own)
	clients := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	return spent{nodes, redis, clients, messages}, errors.Join(err1, err2, err3, err4)
}

// processorTime is what a process has used, to a hundredth of a second.
func processorTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold spaces
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("understanding /proc/%d/stat: %q", pid, stat)
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("understanding /proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
