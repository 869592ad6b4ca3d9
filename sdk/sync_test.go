package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

type peer struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

func TestStatesAndTopics(t *testing.T) {
	s := newServer(t)
	const n = 20
	peers := Topic[peer]("peers")
	var work sync.WaitGroup
	for i := range n {
		work.Go(func() {
			r := joined(t, s, reachIn)
			if seq, err := peers.Publish(t.Context(), r, peer{"x<>&", i}); err != nil || seq < 1 || seq > n {
				t.Error(seq, err)
			}
			all, err := peers.Collect(t.Context(), r, n)
			if err != nil || len(all) != n || all[0].Name != "x<>&" {
				t.Error(all, err)
			}
			if seq, err := r.SignalAndWait(t.Context(), "done", n); err != nil || seq < 1 || seq > n {
				t.Error(seq, err)
			}
		})
	}
	work.Wait()
	if first := s.Items(prefix + "topics:peers")[0]; !strings.Contains(first, `"x<>&"`) {
		t.Errorf("what has to be escaped in HTML only is escaped: %s", first)
	}
	if none, err := peers.Collect(t.Context(), joined(t, s, reachIn), 0); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
}

func TestErrorsNameWhatFailed(t *testing.T) {
	s := newServer(t)
	r := joined(t, s, reachIn)
	s.Publish(prefix+"topics:numbers", `"seven"`)
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, refused := Topic[int]("refused").Publish(t.Context(), r, 1)
	_, channel := Topic[chan int]("channels").Publish(t.Context(), r, nil)
	_, mistyped := Topic[int]("numbers").Collect(t.Context(), r, 1)
	_, few := Topic[int]("few").Collect(short, r, 1)
	for want, err := range map[string]error{
		"publishing on refused: this topic is refused": refused,
		"publishing on channels: json":                 channel,
		"reading numbers: json":                        mistyped,
		"(with 0 of 1 items)":                          few,
		"waiting for s to reach 9":                     r.Barrier(short, "s", 9),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if !errors.Is(few, context.DeadlineExceeded) {
		t.Errorf("the context's end is not in %v", few)
	}
}

// TestCancelled checks that what is given up is cancelled at the service, and that the connection serves on.
func TestCancelled(t *testing.T) {
	s := newServer(t)
	r := joined(t, s, reachIn)
	ctx, cancel := context.WithCancel(t.Context())
	s.Publish(prefix+"topics:t", "1")
	for n, err := range Topic[int]("t").Subscribe(ctx, r) {
		if n != 1 || err != nil {
			t.Error(n, err)
		}
		break
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := r.Barrier(ctx, "never", 1); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := r.Signal(t.Context(), "s"); err != nil {
		t.Error(err)
	}
	r.conn.close()
	s.Close()
	if n := strings.Count(strings.Join(s.Requests, "\n"), `"is_cancel":true`); n != 2 {
		t.Errorf("%d requests were cancelled: %s", n, s.Requests)
	}
}

// TestReconnect breaks the connection again and again under a subscription and a barrier.
func TestReconnect(t *testing.T) {
	s := newServer(t)
	r := joined(t, s, reachIn)
	const n = 300
	var work sync.WaitGroup
	work.Go(func() {
		if err := r.Barrier(t.Context(), "published", 1); err != nil {
			t.Error(err)
		}
	})
	over := make(chan struct{})
	work.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(7 * time.Millisecond):
				s.Cut()
			}
		}
	})
	work.Go(func() {
		for i := range n {
			s.Publish(prefix+"topics:t", fmt.Sprint(i))
			time.Sleep(time.Millisecond)
		}
	})
	items, err := Topic[int]("t").Collect(t.Context(), r, n)
	if err != nil || !slices.IsSorted(items) || len(slices.Compact(items)) != n {
		t.Errorf("%v, %v", items, err)
	}
	close(over)
	s.Signal(prefix + "states:published")
	work.Wait()
}

func TestUnanswered(t *testing.T) {
	s := newServer(t)
	r := joined(t, s, reachIn)
	s.Mute(true)
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() {
			if _, err := r.Signal(t.Context(), "s"); !errors.Is(err, ErrUnanswered) {
				t.Error(err)
			}
		})
	}
	for s.Count(prefix+"states:s") < 2 {
		time.Sleep(time.Millisecond)
	}
	s.Cut()
	work.Wait()
	s.Mute(false)
	if n, err := r.Signal(t.Context(), "s"); n != 3 || err != nil {
		t.Errorf("the next one gives %d, %v", n, err)
	}
}

func TestUnreachable(t *testing.T) {
	s := newServer(t)
	r := joined(t, s, 50*time.Millisecond)
	ended := make(chan error, 2)
	go func() { ended <- r.Barrier(context.Background(), "never", 1) }()
	go func() {
		_, err := Topic[int]("t").Collect(context.Background(), r, 1)
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond)
	s.Close()
	for range 2 {
		if err := <-ended; !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
	}
	if _, err := r.Signal(t.Context(), "s"); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	s = newServer(t)
	s.Refuse(403)
	if _, err := joined(t, s, time.Minute).Signal(t.Context(), "s"); err == nil || !strings.Contains(err.Error(), "refuses this instance") {
		t.Errorf("refused: %v", err)
	}
}

func TestConfigureNetwork(t *testing.T) {
	s := newServer(t)
	r := joined(t, s, reachIn)
	done := make(chan error, 1)
	go func() {
		done <- r.ConfigureNetwork(t.Context(), Network{
			Default: Link{Latency: 80 * time.Millisecond, Bandwidth: 20 * Mbit, Loss: 0.25},
			Rules:   []Rule{{Link{Filter: Drop}, mustPrefix("10.0.1.0/24")}},
			Address: mustPrefix("10.0.3.4/16"), Closed: true,
		})
	}()
	callback := prefix + "states:network-configured-g-0-1"
	for len(s.Items(prefix+"topics:network:g-0")) == 0 {
		time.Sleep(time.Millisecond)
	}
	s.Signal(callback)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var got, want any
	_ = json.Unmarshal([]byte(s.Items(prefix + "topics:network:g-0")[0]), &got)
	shape := `"jitter":0,"corrupt":0,"corrupt_corr":0,"reorder":0,"reorder_corr":0,"duplicate":0,"duplicate_corr":0`
	_ = json.Unmarshal([]byte(`{"network":"default","IPv4":"10.0.3.4/16","IPv6":null,"enable":true,"routing_policy":"deny_all",
		"default":{"latency":80000000,"bandwidth":20000000,"filter":0,"loss":25,`+shape+`},
		"rules":[{"subnet":"10.0.1.0/24","latency":0,"bandwidth":0,"filter":2,"loss":0,`+shape+`}],
		"callback_state":"network-configured-g-0-1"}`), &want)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("sent %v\nwant %v", got, want)
	}
	for name, n := range map[string]Network{
		"negative": {Default: Link{Latency: -1}}, "share": {Default: Link{Loss: 5}}, "nowhere": {Rules: []Rule{{}}},
		"rule": {Rules: []Rule{{Link{Filter: 3}, mustPrefix("10.0.0.0/8")}}},
	} {
		if err := r.ConfigureNetwork(t.Context(), n); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	r.Shaped = false
	if err := r.ConfigureNetwork(t.Context(), Network{}); !errors.Is(err, ErrNotShaped) {
		t.Error(err)
	}
}
