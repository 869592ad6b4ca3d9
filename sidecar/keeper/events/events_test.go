package events

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

// stage notes what events do, with the time that has gone since the gate opened.
type stage struct {
	opened time.Time
	past   map[string]Past
	states map[string]chan struct{}
	takes  time.Duration // how long Begin and End take
	fails  map[string]error
	faults []string

	mu   sync.Mutex
	said []string
}

func (s *stage) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, fmt.Sprintf("%v ", time.Since(s.opened))+fmt.Sprintf(format, args...))
}

func (s *stage) fault(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, err.Error())
}

func (s *stage) Reached(ctx context.Context, state string) error {
	select {
	case <-s.states[state]:
		return s.fails[state]
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *stage) do(ctx context.Context, what, name string) error {
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.fails[what+" "+name]
}

func (s *stage) Begin(ctx context.Context, e pipelines.Event) ([]string, error) {
	return []string{"g/1"}, s.do(ctx, "begin", e.Name)
}

func (s *stage) End(ctx context.Context, e pipelines.Event, instances []string) error {
	if !slices.Equal(instances, []string{"g/1"}) && e.Network == nil {
		s.note("end of %s for %v", e.Name, instances)
	}
	return s.do(ctx, "end", e.Name)
}

func (s *stage) Tell(h Happening) {
	due := "no time"
	if !h.Due.IsZero() {
		due = h.Due.Sub(s.opened).String()
	}
	s.note("%s %s, due at %s, took %v", h.Event.Name, [...]string{"began", "ended", "missed"}[h.What], due, h.Took)
}

// play runs events for a time, does what is to be done meanwhile, and returns what was said.
func (s *stage) play(list []pipelines.Event, lasts time.Duration, meanwhile func()) []string {
	s.opened = time.Now()
	schedule := Start(context.Background(), s.opened, Named(list), s.past, s, s.fault)
	if meanwhile != nil {
		meanwhile()
	}
	time.Sleep(lasts - time.Since(s.opened))
	synctest.Wait()
	schedule.Stop()
	if err := schedule.Lift(context.Background()); err != nil {
		s.fault(err)
	}
	return s.said
}

func at(offset time.Duration) pipelines.Anchor {
	return pipelines.Anchor{Offset: pipelines.Duration(offset)}
}

func network(name string, at pipelines.Anchor, lasts time.Duration) pipelines.Event {
	return pipelines.Event{Name: name, At: at, For: pipelines.Duration(lasts), Network: &pipelines.Network{}}
}

func kill(name string, at pipelines.Anchor, restart time.Duration) pipelines.Event {
	return pipelines.Event{Name: name, At: at, Restart: pipelines.Duration(restart), Kill: &pipelines.Choice{Group: "g"}}
}

func pause(name string, at pipelines.Anchor, lasts time.Duration) pipelines.Event {
	return pipelines.Event{Name: name, At: at, Pause: &pipelines.Choice{Group: "g", For: pipelines.Duration(lasts)}}
}

func TestTimes(t *testing.T) {
	const second = time.Second
	for name, c := range map[string]struct {
		events []pipelines.Event
		lasts  time.Duration
		takes  time.Duration
		want   []string
	}{
		"none": {nil, second, 0, nil},
		"healed after its time": {[]pipelines.Event{network("split", at(30*second), 30*second)}, 90 * second, 0,
			[]string{"30s split began, due at 30s, took 0s", "1m0s split ended, due at 1m0s, took 0s"}},
		"its time counts from when it is in force": {[]pipelines.Event{network("split", at(30*second), 30*second)}, 90 * second, second,
			[]string{"31s split began, due at 30s, took 1s", "1m2s split ended, due at 1m1s, took 1s"}},
		"lifted with the stage's end": {[]pipelines.Event{network("split", at(0), 0), network("late", at(second), 30*second)}, 2 * second, 0,
			[]string{"0s split began, due at 0s, took 0s", "1s late began, due at 1s, took 0s",
				"2s late ended, due at no time, took 0s", "2s split ended, due at no time, took 0s"}},
		"after another": {[]pipelines.Event{
			kill("churn", pipelines.Anchor{Event: "split", Healed: true, Offset: pipelines.Duration(10 * second)}, 20*second),
			network("split", at(5*second), 5*second), pause("", pipelines.Anchor{Event: "split"}, 3*second),
		}, 60 * second, 0, []string{
			"5s event 3 began, due at 5s, took 0s", "5s split began, due at 5s, took 0s", "8s event 3 ended, due at 8s, took 0s",
			"10s split ended, due at 10s, took 0s", "20s churn began, due at 20s, took 0s", "40s churn ended, due at 40s, took 0s",
		}},
		"missed": {[]pipelines.Event{network("split", at(5*second), 0), kill("after", pipelines.Anchor{Event: "split", Healed: true}, 0)}, 2 * second, 0,
			[]string{"2s after missed, due at no time, took 0s", "2s split missed, due at 5s, took 0s"}},
		"cut off": {[]pipelines.Event{kill("churn", at(second), 20*second), pause("nap", at(second), 20*second)}, 2 * second, 0,
			[]string{"1s churn began, due at 1s, took 0s", "1s nap began, due at 1s, took 0s"}},
		"cut off half done": {[]pipelines.Event{network("split", at(second), 0)}, 2 * second, 5 * second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &stage{takes: c.takes}
				got := s.play(c.events, c.lasts, nil)
				slices.SortStableFunc(got, byTime) // those of one moment come in any order
				if !slices.Equal(got, c.want) || len(s.faults) > 0 {
					t.Errorf("got\n  %s\nwant\n  %s\nfaults %q", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "), s.faults)
				}
			})
		})
	}
}

func byTime(a, b string) int {
	first, textA, _ := strings.Cut(a, " ")
	second, textB, _ := strings.Cut(b, " ")
	x, _ := time.ParseDuration(first)
	y, _ := time.ParseDuration(second)
	if x != y {
		return int(x - y)
	}
	return strings.Compare(textA, textB)
}

func TestStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{states: map[string]chan struct{}{"half-done": make(chan struct{}), "never": nil}}
		half := pipelines.Anchor{State: "half-done", Offset: pipelines.Duration(time.Second)}
		got := s.play([]pipelines.Event{pause("nap", half, time.Second), kill("fall", pipelines.Anchor{State: "never"}, 0)}, 20*time.Second, func() {
			time.Sleep(7 * time.Second)
			close(s.states["half-done"])
		})
		want := []string{"8s nap began, due at 8s, took 0s", "9s nap ended, due at 9s, took 0s", "20s fall missed, due at no time, took 0s"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
}

// TestWhatFails checks that each fault names its event, and that what has changed the network is taken back all the same.
func TestWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reached := make(chan struct{})
		close(reached)
		s := &stage{
			states: map[string]chan struct{}{"gone": reached},
			fails: map[string]error{
				"begin split": errors.New("no such group"), "end heal": errors.New("out of memory"), "gone": errors.New("no Redis"),
			},
		}
		s.play([]pipelines.Event{
			network("split", at(time.Second), 0), network("heal", at(2*time.Second), time.Second),
			kill("", pipelines.Anchor{State: "gone"}, 0), pause("nap", pipelines.Anchor{Event: "nobody"}, time.Second),
		}, 10*time.Second, nil)
		slices.Sort(s.faults)
		want := []string{
			"event 3 waits for the state gone: no Redis",
			"the event heal can't be taken back: out of memory",
			"the event heal can't be taken back: out of memory", // once more, with the stage's end
			"the event nap waits for the event nobody, which there isn't",
			"the event split can't be carried out: no such group",
		}
		if !slices.Equal(s.faults, want) {
			t.Errorf("got\n%s", strings.Join(s.faults, "\n"))
		}
	})
}

func TestChoose(t *testing.T) {
	draw := Draw{Seed: 7, Stage: "lookups", Event: "churn"}
	share := func(s pipelines.Share) pipelines.Choice { return pipelines.Choice{Group: "g", Share: &s} }
	hundred := upTo(100)
	for name, c := range map[string]struct {
		choice  pipelines.Choice
		all     int
		running []int
		want    int
	}{
		"a share":                      {share(0.05), 100, hundred, 5},
		"of all, not of those running": {share(0.05), 100, hundred[:50], 5},
		"all":                          {share(1), 100, hundred, 100},
		"none":                         {share(0), 100, hundred, 0},
		"all unless it says how many":  {pipelines.Choice{Group: "g"}, 100, hundred, 100},
		"rounded up":                   {share(0.05), 30, hundred[:30], 2},
		"rounded down":                 {share(0.05), 28, hundred[:28], 1},
		"at least one":                 {share(0.01), 3, hundred[:3], 1},
		"of nobody":                    {share(0.5), 10, nil, 0},
		"a count":                      {pipelines.Choice{Group: "g", Count: 7}, 100, hundred, 7},
		"more than there are":          {pipelines.Choice{Group: "g", Count: 7}, 100, hundred[:3], 3},
	} {
		got := draw.Choose(c.choice, c.all, c.running)
		if len(got) != c.want || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("%s: %v, want %d", name, got, c.want)
		}
	}
	if got := draw.Choose(pipelines.Choice{Group: "g", Indices: []int{9, 3, 4}}, 100, []int{3, 9, 20}); !slices.Equal(got, []int{3, 9}) {
		t.Errorf("named ones: %v", got)
	}
	// The same seed chooses the same, in whatever order they are given; anything else others.
	five := share(0.05)
	first := draw.Choose(five, 100, hundred)
	if want := []int{12, 32, 50, 69, 99}; !slices.Equal(first, want) {
		t.Errorf("choices have changed: %v; runs can't be repeated any more", first)
	}
	mixed := slices.Clone(hundred)
	rand.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	if again := draw.Choose(five, 100, mixed); !slices.Equal(again, first) {
		t.Errorf("%v, then %v", first, again)
	}
	for _, other := range []Draw{{8, "lookups", "churn"}, {7, "lookup", "churn"}, {7, "lookups", "churn2"}, {7, "lookupsc", "hurn"}} {
		if slices.Equal(other.Choose(five, 100, hundred), first) {
			t.Errorf("%+v chooses the same", other)
		}
	}
	// One that has ended is replaced by one other.
	without := slices.DeleteFunc(slices.Clone(hundred), func(i int) bool { return i == first[2] })
	kept := 0
	for _, i := range draw.Choose(five, 100, without) {
		if slices.Contains(first, i) {
			kept++
		}
	}
	if kept != 4 {
		t.Errorf("%d of the choice are kept", kept)
	}
}

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// TestChoiceIsFair draws many times: every instance has its turn.
func TestChoiceIsFair(t *testing.T) {
	times := make([]int, 20)
	for seed := range uint64(2000) {
		for _, i := range (Draw{Seed: seed, Stage: "s", Event: "e"}).Choose(pipelines.Choice{Group: "g", Count: 5}, 20, upTo(20)) {
			times[i]++
		}
	}
	for i, n := range times { // 500 each, with a deviation of 20
		if n < 400 || n > 600 {
			t.Errorf("%d was chosen %d times", i, n)
		}
	}
}

func TestNamed(t *testing.T) {
	list := []pipelines.Event{{Name: "a"}, {}, {}}
	var names []string
	for _, e := range Named(list) {
		names = append(names, e.Name)
	}
	if want := []string{"a", "event 2", "event 3"}; !reflect.DeepEqual(names, want) || list[1].Name != "" {
		t.Errorf("%q, and the list is now %+v", names, list)
	}
}
