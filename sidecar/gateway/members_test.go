package gateway

import "testing"

func TestMembers(t *testing.T) {
	client, end, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	var all []*Gateway
	for range 2 {
		g, err := New(Options{Redis: client, Run: "r"})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		all = append(all, g)
	}
	for _, name := range []string{"a", "b", "a"} {
		if err := all[0].Join(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		name string
		last bool
	}{{"a", false}, {"a", false}, {"b", true}, {"b", true}} {
		if last, err := all[i%2].Leave(t.Context(), step.name); err != nil || last != step.last {
			t.Errorf("%d: %s leaves: %v, %v", i, step.name, last, err)
		}
	}
}
