package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTheNewestWriteWins(t *testing.T) {
	older, same, newer := value{1, 9, "older"}, value{2, 3, "same"}, value{2, 4, "newer"}
	for _, order := range [][]value{{older, same, newer}, {newer, same, older}, {same, newer, older, newer}} {
		r := newReplica(1)
		for _, v := range order {
			r.merge(v)
		}
		if got, _ := r.get(); got != newer {
			t.Errorf("%v leaves %v", order, got)
		}
	}
}

func TestAWriteIsNewerThanWhatWasThere(t *testing.T) {
	r := newReplica(3)
	_, changed := r.get()
	r.merge(value{7, 9, "there"})
	select {
	case <-changed:
	default:
		t.Error("nobody was told of a change")
	}
	r.write("mine")
	if got, _ := r.get(); got != (value{8, 3, "mine"}) {
		t.Errorf("%v", got)
	}
	_, changed = r.get()
	r.merge(value{7, 9, "there"})
	select {
	case <-changed:
		t.Error("an old value is a change")
	default:
	}
}

func TestService(t *testing.T) {
	r := newReplica(1)
	server := httptest.NewServer(r)
	defer server.Close()
	c := newClient(time.Second)
	if err := c.put(t.Context(), server.URL+"/value", value{3, 2, "put"}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.get(t.Context(), server.URL+"/value"); err != nil || got != (value{3, 2, "put"}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.get(t.Context(), server.URL+"/values"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("another path: %v", err)
	}
	for method, want := range map[string]int{http.MethodDelete: http.StatusMethodNotAllowed, http.MethodPut: http.StatusBadRequest} {
		request, err := http.NewRequest(method, server.URL+"/value", strings.NewReader("no value"))
		if err != nil {
			t.Fatal(err)
		}
		if response, err := http.DefaultClient.Do(request); err != nil || response.StatusCode != want {
			t.Errorf("%s: %v, %v", method, response, err)
		}
	}
}

// wall is a network that can be cut.
type wall struct {
	mu  sync.Mutex
	cut func(from, to string) bool // regions
	of  map[string]string          // host:port → region
}

func (w *wall) set(cut func(from, to string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

// from is the network as a region sees it.
func (w *wall) from(region string) client {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		w.mu.Lock()
		cut := w.cut(region, w.of[address])
		w.mu.Unlock()
		if cut {
			return nil, errors.New("cut")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return client{&http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}}
}

// town starts a replica per region name, replicating to all others, on a wall.
func town(t *testing.T, split string, regions ...string) (*wall, []*cluster, []*replica) {
	t.Helper()
	apart, err := readIslands(split)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	t.Cleanup(func() { cancel(); work.Wait() })
	w := &wall{cut: func(string, string) bool { return false }, of: map[string]string{}}
	var all []peer
	var replicas []*replica
	for i, region := range regions {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		r := newReplica(int64(i + 1))
		r.serve(ctx, func(f func()) { work.Go(f) }, l)
		w.of[l.Addr().String()] = region
		replicas = append(replicas, r)
		all = append(all, peer{r.seq, region, region, "http://" + l.Addr().String() + "/value"})
	}
	var clusters []*cluster
	for i, own := range all {
		c, err := newCluster(own, all, apart)
		if err != nil {
			t.Fatal(err)
		}
		c.client = w.from(own.Region)
		c.record = func(peer, time.Duration) error { return nil }
		clusters = append(clusters, c)
		for _, p := range all {
			if p != own {
				work.Go(func() { replicas[i].replicate(ctx, c.client, p.URL) })
			}
		}
	}
	return w, clusters, replicas
}

// TestAPartition plays what the instances do.
func TestAPartition(t *testing.T) {
	for _, split := range []string{"eu,us,asia", "eu+us,asia"} {
		t.Run(split, func(t *testing.T) {
			w, clusters, replicas := town(t, split, "eu", "us", "asia", "eu")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			everyone := func(what string, try func(*cluster) error) {
				t.Helper()
				for _, c := range clusters {
					if err := until(ctx, what, func() error { return try(c) }); err != nil {
						t.Fatalf("%s: %v", c.own.Name, err)
					}
				}
			}
			replicas[0].write("first")
			everyone("first", func(c *cluster) error { return c.agreed(ctx, "first") })
			if err := clusters[0].apart(ctx, ""); err == nil || !strings.Contains(err.Error(), "on another island") {
				t.Errorf("before the cut: %v", err)
			}

			island := clusters[0].island
			w.set(func(from, to string) bool { return island.of(from) != island.of(to) })
			everyone("cut", func(c *cluster) error { return c.apart(ctx, "") })
			for i, c := range clusters {
				if own := island.of(c.own.Region); c.writer(own) == c.own {
					replicas[i].write(c.text(own))
				}
			}
			everyone("values of their own", func(c *cluster) error { return c.apart(ctx, c.text(island.of(c.own.Region))) })
			if err := clusters[0].agreed(ctx, "first"); err == nil || !strings.Contains(err.Error(), "asia does not answer") {
				t.Errorf("while cut apart: %v", err)
			}

			w.set(func(string, string) bool { return false })
			everyone("healed", func(c *cluster) error { return c.agreed(ctx, "written in asia") })
			if got := clusters[1].winner(); got != "written in asia" {
				t.Errorf("the winner is %q", got)
			}
		})
	}
}

func TestAnIslandThatFallsApartIsNamed(t *testing.T) {
	w, clusters, _ := town(t, "eu+us,asia", "eu", "us", "asia")
	w.set(func(from, to string) bool { return from != to })
	err := clusters[0].apart(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), "us, on the same island, does not answer") {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err = until(ctx, "the regions are cut apart", func() error { return clusters[0].apart(ctx, "") })
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waiting until the regions are cut apart") {
		t.Error(err)
	}
}

func TestIslands(t *testing.T) {
	got, err := readIslands("eu+us,asia")
	if err != nil || !reflect.DeepEqual(got, islands{{"eu", "us"}, {"asia"}}) {
		t.Errorf("%v, %v", got, err)
	}
	for region, want := range map[string]int{"eu": 0, "us": 0, "asia": 1, "mars": -1} {
		if at := got.of(region); at != want {
			t.Errorf("%s is on %d", region, at)
		}
	}
	for _, text := range []string{"", "eu", "eu+us", "eu,eu", "eu,,us", "eu,+us"} {
		if got, err := readIslands(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	if _, err := newCluster(peer{}, []peer{{Name: "lost", Region: "mars"}}, got); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Error(err)
	}
}
