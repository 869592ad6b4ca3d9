package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const passed = `{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"pass","Package":"a","Test":"TestX","Elapsed":0.1}
{"Action":"pass","Package":"a","Elapsed":0.2}
`
	tests := []struct {
		name  string
		input string
		ci    bool
		good  bool
		says  []string
	}{
		{name: "passed", input: passed, ci: true, good: true, says: []string{"pass    0.2s  a", "1 passed, 0 failed, 0 skipped"}},
		{name: "nothing ran", input: "", says: []string{"no test ran"}},
		{
			name: "failed",
			input: passed + `{"Action":"output","Package":"b","Test":"TestY","Output":"    y_test.go:3: wrong\n"}
{"Action":"fail","Package":"b","Test":"TestY"}
{"Action":"fail","Package":"b"}
`,
			says: []string{"--- FAILED b TestY", "y_test.go:3: wrong", "1 passed, 1 failed, 0 skipped"},
		},
		{
			name: "does not compile",
			input: passed + `{"ImportPath":"c [c.test]","Action":"build-output","Output":"c.go:1: undefined: x\n"}
{"Action":"fail","Package":"c","FailedBuild":"c [c.test]"}
`,
			says: []string{"c.go:1: undefined: x", "1 passed, 1 failed, 0 skipped"},
		},
		{
			name: "skipped at home",
			input: passed + `{"Action":"output","Package":"d","Test":"TestZ","Output":"    z_test.go:9: needs root\n"}
{"Action":"skip","Package":"d","Test":"TestZ"}
`,
			good: true,
			says: []string{"d TestZ: z_test.go:9: needs root", "1 passed, 0 failed, 1 skipped"},
		},
		{
			name:  "skipped in CI",
			input: passed + `{"Action":"skip","Package":"d","Test":"TestZ"}` + "\n",
			ci:    true,
			says:  []string{"no reason given", "a skipped test is a failure in CI"},
		},
		{name: "not an event", input: "go: downloading x\n" + passed, good: true, says: []string{"go: downloading x"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			s := newSummary()
			if err := s.read(bufio.NewReader(strings.NewReader(test.input)), &out); err != nil {
				t.Fatal(err)
			}
			if good := s.print(&out, test.ci); good != test.good {
				t.Errorf("good = %v, want %v", good, test.good)
			}
			for _, want := range test.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("does not say %q:\n%s", want, out.String())
				}
			}
		})
	}
}
