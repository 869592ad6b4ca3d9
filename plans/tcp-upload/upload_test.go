package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

// taking takes uploads until the test ends; what went wrong there is in the second result.
func taking(t *testing.T, record func(float64) error) (netip.AddrPort, func() []error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	var faults []error
	i := &intake{listener: l, sample: time.Millisecond, record: record, failed: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		faults = append(faults, err)
	}}
	work.Go(func() { i.serve(func(f func()) { work.Go(f) }) })
	t.Cleanup(func() { l.Close(); work.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort(), func() []error {
		l.Close()
		work.Wait()
		return faults
	}
}

func TestUploadsCome(t *testing.T) {
	var mu sync.Mutex
	rates := 0
	to, faults := taking(t, func(rate float64) error {
		mu.Lock()
		defer mu.Unlock()
		rates++
		if rate < 0 {
			return errors.New("a rate below 0")
		}
		return nil
	})
	var all sync.WaitGroup
	for _, size := range []int64{1, 3, 1000, 10 << 20} {
		all.Go(func() {
			s, err := upload(t.Context(), to, uint64(size), size)
			if err != nil || s.Bytes != size || s.took <= 0 || s.connect <= 0 || s.Steady <= 0 && size > 1000 {
				t.Errorf("%d bytes: %+v, %v", size, s, err)
			}
		})
	}
	all.Wait()
	if f := faults(); len(f) > 0 {
		t.Error(f)
	}
	if rates == 0 {
		t.Error("no rate was recorded")
	}
}

func TestWhatCannotBeRecordedFailsTheUpload(t *testing.T) {
	full := errors.New("disk full")
	to, faults := taking(t, func(float64) error { return full })
	if _, err := upload(t.Context(), to, 1, 50<<20); err == nil {
		t.Error("went on")
	}
	if f := faults(); len(f) != 1 || !errors.Is(f[0], full) {
		t.Error(f)
	}
}

func TestAReceiptForSomethingElseIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for answer, says := range map[string]string{`{"Bytes":3}`: "3 of 10 bytes", `{"Bytes":10}`: "not those that were sent", "nonsense": "receipt"} {
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.ReadFull(c, make([]byte, 18))
			_, _ = io.WriteString(c, answer)
		}()
		if _, err := upload(t.Context(), l.Addr().(*net.TCPAddr).AddrPort(), 1, 10); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

func TestACancelledUploadEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := upload(ctx, l.Addr().(*net.TCPAddr).AddrPort(), 1, 1<<30); err == nil {
		t.Error("went on though nobody took it")
	}
}

func TestTheSameSeedSendsTheSame(t *testing.T) {
	read := func(seed uint64) string {
		b, err := io.ReadAll(content(seed, 1000))
		if err != nil || len(b) != 1000 {
			t.Fatal(len(b), err)
		}
		return string(b)
	}
	if first, again, other := read(1), read(1), read(2); first != again || first == other {
		t.Error("content doesn't follow from the seed")
	}
}

func TestTheSteadyRateLeavesTheFirstQuarterOut(t *testing.T) {
	p := &progress{total: 400, sum: discard{}, began: time.Now(), sample: time.Hour, sampled: time.Now()}
	if p.steady() != 0 {
		t.Error("a rate before anything came")
	}
	for range 4 {
		if _, err := p.Write(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if got := p.steady(); got <= 0 || got > 8*300/0.004 {
		t.Errorf("%v", got)
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Sum(b []byte) []byte         { return b }
func (discard) Reset()                      {}
func (discard) Size() int                   { return 0 }
func (discard) BlockSize() int              { return 1 }

func TestSettings(t *testing.T) {
	run := func(params map[string]string) *sdk.Run {
		return &sdk.Run{Environment: sdk.Environment{Params: params}}
	}
	if s, err := readSettings(run(nil)); err != nil || s != (settings{1 << 20, 200 * time.Millisecond, "upload"}) {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := readSettings(run(map[string]string{"size": "2MB", "sample": "1s", "label": "x"})); err != nil || s != (settings{2e6, time.Second, "x"}) {
		t.Errorf("%+v, %v", s, err)
	}
	for name, value := range map[string]string{"size": "0", "sample": "0s"} {
		if _, err := readSettings(run(map[string]string{name: value})); err == nil {
			t.Errorf("%s=%s is taken", name, value)
		}
	}
}
