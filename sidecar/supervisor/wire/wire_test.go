package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestLinesAreReadAsWritten(t *testing.T) {
	var all bytes.Buffer
	asked := []Request{
		{ID: 1, Start: &Start{Ident: Ident{"k", 2}, Path: "/p", Args: []string{"p", "a\nb"}, Env: []string{"A=" + strings.Repeat("x", 100_000)}, Held: true}},
		{ID: 2, Attach: &Ident{"k", 1}},
		{ID: 3, Signal: &Signal{Number: 9, All: true}},
		{ID: 4, Clear: &Clear{Within: 5}},
	}
	for _, ask := range asked {
		line, err := Line(ask)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(line)
	}
	in := NewReader(iotest(&all))
	for i, want := range asked {
		var got Request
		if err := in.Read(&got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("line %d is read as %+v, %v", i, got, err)
		}
	}
	if err := in.Read(&Request{}); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// iotest gives what there is in small pieces.
func iotest(r io.Reader) io.Reader { return &pieces{r} }

type pieces struct{ io.Reader }

func (p *pieces) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), 1000)]) }

func TestWhatCannotBeRead(t *testing.T) {
	for name, test := range map[string]struct {
		in   io.Reader
		want error
	}{
		"half a line": {strings.NewReader(`{"id":1`), io.ErrUnexpectedEOF},
		"no end":      {endless{}, ErrTooLong},
		"no JSON":     {strings.NewReader("nonsense\n"), nil},
		"another":     {strings.NewReader("[1]\n"), nil},
	} {
		err := NewReader(test.in).Read(&Answer{})
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Line(Request{Start: &Start{Path: strings.Repeat("x", LongestLine)}}); !errors.Is(err, ErrTooLong) {
		t.Errorf("a line that nobody would read: %v", err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(`{"hello":{"boot":"x","folder":"/groundplan","environ":["A=1"]}}` + "\n" + `{"ended":{"key":"k","starts":1,"exit":{"status":9}}}` + "\n"))
	f.Add([]byte("{}\n\n{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := NewReader(bytes.NewReader(b))
		for n := 0; ; n++ {
			var a Answer
			err := in.Read(&a)
			if err == nil {
				if line, err := Line(a); err != nil || len(line) == 0 {
					t.Errorf("%+v can't be written again: %v", a, err)
				}
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return
			}
			if n > len(b) {
				t.Fatal("it doesn't come to an end")
			}
		}
	})
}
