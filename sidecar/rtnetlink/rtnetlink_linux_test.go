package rtnetlink

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Everybody may ask for links and routes: these tests need no rights.

func open(t *testing.T) *Socket {
	t.Helper()
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

const loopback, nowhere = 1, 1<<31 - 1

// look asks for a link.
func look(index int32) *nl.NetlinkRequest {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = index
	request.AddData(message)
	return request
}

func TestDo(t *testing.T) {
	missing := Step{What: "looking for a link", Done: unix.ENODEV}
	for _, c := range []struct {
		name  string
		most  int
		bytes int
		steps []Step // all of them for what isn't there
		parts int
		want  string
	}{
		{name: "nothing to do"},
		{name: "done before", steps: []Step{missing, missing}, parts: 1},
		{name: "one refusal", steps: []Step{missing, {What: "two"}, missing}, parts: 1, want: "two: no such device"},
		{name: "the rest is tried", steps: []Step{{What: "one"}, {What: "two"}, {What: "three"}}, parts: 1, want: "one: no such device (and 2 more refusals after it)"},
		{name: "but not the other parts", most: 2, steps: []Step{missing, missing, {What: "three"}, {What: "four"}, {What: "five"}}, parts: 3, want: "three: no such device (and 1 more refusals after it)"},
		{name: "parts by size", bytes: 64, steps: []Step{missing, missing, {What: "three"}, missing, {What: "five"}}, parts: 3, want: "three: no such device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			b := Batch{MaxRequests: c.most, MaxBytes: c.bytes}
			for _, step := range c.steps {
				b.Add(step, look(nowhere))
			}
			if len(b.parts) != c.parts {
				t.Errorf("%d parts, want %d", len(b.parts), c.parts)
			}
			err := s.Do(&b)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || err.Error() != c.want || !errors.Is(err, unix.ENODEV) {
				t.Fatalf("error %v, want %s", err, c.want)
			}
			// The socket can still be used.
			if got := loopbacks(t, s); got != 1 {
				t.Errorf("afterwards %d loopback links were listed, want 1", got)
			}
		})
	}
}

func TestRefusalsHaveTheKernelsWords(t *testing.T) {
	s := open(t)
	short := nl.NewNetlinkRequest(unix.RTM_GETROUTE, 0)
	short.AddRawData([]byte{unix.AF_INET, 0, 0, 0})
	var b Batch
	b.Add(Step{What: "asking too little"}, short)
	err := s.Do(&b)
	if !errors.Is(err, unix.EINVAL) || !strings.HasPrefix(err.Error(), "asking too little: invalid argument (") {
		t.Errorf("error %v, want what was asked, EINVAL and the kernel's words", err)
	}
}

// loopbacks counts those in a list of all links.
func loopbacks(t *testing.T, s *Socket) (count int) {
	t.Helper()
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	err := s.Query(request, func(payload []byte) {
		if nl.DeserializeIfInfomsg(payload).Index == loopback {
			count++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

func TestQuery(t *testing.T) {
	s := open(t)
	if got := loopbacks(t, s); got != 1 {
		t.Errorf("%d loopback links were listed, want 1", got)
	}
	one := look(loopback)
	one.Flags |= unix.NLM_F_ACK
	answers := 0
	if err := s.Query(one, func([]byte) { answers++ }); err != nil || answers != 1 {
		t.Errorf("%d answers, error %v, want 1 answer", answers, err)
	}
	if err := s.Query(look(nowhere), func([]byte) { t.Error("an answer") }); !errors.Is(err, unix.ENODEV) {
		t.Errorf("error %v, want ENODEV", err)
	}
}

func TestNamespace(t *testing.T) {
	one, err := open(t).Namespace()
	if errors.Is(err, unix.ENOPROTOOPT) {
		t.Skip(err)
	}
	two, again := open(t).Namespace()
	if err := errors.Join(err, again); err != nil || one == 0 || one != two {
		t.Errorf("the namespace is %d and %d, error %v", one, two, err)
	}
}
