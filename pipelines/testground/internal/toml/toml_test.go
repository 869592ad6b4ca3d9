package toml

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", `{}`},
		{"comments", "# one\n\na = 1 # two\n#", `{"a":1}`},
		{"carriage returns", "a = 1\r\nb = 2\r\n", `{"a":1,"b":2}`},
		{"byte order mark", "\ufeffa = 1", `{"a":1}`},
		{"keys", "bare_1-x = 1\n\"quoted key\" = 2\n'literal' = 3\n3.14 = 4\n\"\" = 5", `{"":5,"3":{"14":4},"bare_1-x":1,"literal":3,"quoted key":2}`},
		{"dotted keys", "a.b.c = 1\na . 'b' . d = 2", `{"a":{"b":{"c":1,"d":2}}}`},
		{"integers", "a = +99\nb = -1_000\nc = 0xdead_beef\nd = 0o17\ne = 0b101\nf = 0", `{"a":99,"b":-1000,"c":3735928559,"d":15,"e":5,"f":0}`},
		{"floats", "a = 1.5\nb = -2e3\nc = 6.02_2E+2\nd = 0.0", `{"a":1.5,"b":-2000,"c":602.2,"d":0}`},
		{"booleans", "a = true\nb = false", `{"a":true,"b":false}`},
		{"times", "a = 1979-05-27T07:32:00Z\nb = 1979-05-27 07:32:00.5-07:00\nc = 1979-05-27\nd = 07:32:00", `{"a":"1979-05-27T07:32:00Z","b":"1979-05-27 07:32:00.5-07:00","c":"1979-05-27","d":"07:32:00"}`},
		{"basic", `a = "t\tn\nq\"b\\u\u00e9U\U0001F600"`, "{\"a\":\"t\\tn\\nq\\\"b\\\\ué" + "U😀\"}"},
		{"literal", `a = 'C:\x'`, `{"a":"C:\\x"}`},
		{"long", "a = \"\"\"\none \\\n   two\n\"\"three\"\"\"\"\"", `{"a":"one two\n\"\"three\"\""}`},
		{"long literal", "a = '''\n\\n'x''''", `{"a":"\\n'x'"}`},
		{"arrays", "a = [1, [2, 'x'], # c\n  {b = 3},\n]\nb = []", `{"a":[1,[2,"x"],{"b":3}],"b":[]}`},
		{"inline tables", "a = {b.c = 1, d = {}}", `{"a":{"b":{"c":1},"d":{}}}`},
		{"inline tables on lines", "a = {\n b = 1, # c\n c = 2,\n}", `{"a":{"b":1,"c":2}}`},
		{"tables", "[a.b]\nc = 1\n[a]\nd = 2\n[ e . \"f g\" ]\n", `{"a":{"b":{"c":1},"d":2},"e":{"f g":{}}}`},
		{"arrays of tables", "[[a]]\nx = 1\n[a.b]\ny = 2\n[[a.c]]\n[[a.c]]\nz = 3\n[[a]]", `{"a":[{"b":{"y":2},"c":[{},{"z":3}],"x":1},{}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, err := Parse(c.text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(table.Native())
			if err != nil || string(got) != c.want {
				t.Errorf("%s, %v\nwant %s", got, err, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a", "1:1"},
		{"a = ", "1:4"},
		{"\n = 1", "2:2"},
		{"a = 1 b = 2", "1:7"},
		{"a = x", "1:5"},
		{"a = 1979-13-01", "1:10"},
		{"a = 9223372036854775808", "1:5"},
		{"a = \"x\nb = 1", "1:7"},
		{"a = \"\xff\"", "1:6"},
		{"a = 1\na = 2", "2:1"},
		{"a = 1\n[b]\nc = {d = 1, d = 2}", "3:1"},
		{"[a]\n[a]", "2:"},
		{"a.b = 1\n[a]", "2:"},
		{"[a]\nb = 1\n[a.b]", "3:"},
		{"a = 1\n[a.b]", "2:"},
		{"a = {}\n[a.b]", "2:"},
		{"a = []\n[[a]]", "2:"},
		{"[a.b]\n[x]\na.b = 1\n[y]\n", ""},
		{"[a]\n[a.b]\n[c]\n[[a]]", "4:"},
		{"[a.b]\n[a]\nb.c = 1", "3:"},
		{"a = " + strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested more than 64 deep"},
		{"b = 1\n" + strings.Repeat("a.", 100) + "a = 1", "2:1: a key has more than 64 parts"},
	} {
		_, err := Parse(c.text)
		var wrong *Error
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.text, err)
		case c.want != "" && (!errors.As(err, &wrong) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestInfinite(t *testing.T) {
	table, err := Parse("a = inf\nb = -inf\nc = nan\nd = +inf")
	if err != nil {
		t.Fatal(err)
	}
	if !math.IsInf(table.Get("a").Float, 1) || !math.IsInf(table.Get("b").Float, -1) || !math.IsNaN(table.Get("c").Float) || !math.IsInf(table.Get("d").Float, 1) {
		t.Errorf("%+v", table.Native())
	}
}

func TestLines(t *testing.T) {
	table, err := Parse("a = 1\n\n[b]\n# c\nd = \"\"\"\n\n\"\"\"\n[[e]]\nf = [\n  1,\n  2]\n")
	if err != nil {
		t.Fatal(err)
	}
	e := table.Get("e")
	for name, got := range map[string][2]int{
		"a": {table.Get("a").Line, 1}, "b": {table.Get("b").Line, 3}, "d": {table.Get("b").Table.Get("d").Line, 5},
		"e": {e.Line, 8}, "f": {e.List[0].Table.Get("f").Line, 9}, "2": {e.List[0].Table.Get("f").List[1].Line, 11},
	} {
		if got[0] != got[1] {
			t.Errorf("%s stands in line %d, want %d", name, got[0], got[1])
		}
	}
}

func TestText(t *testing.T) {
	table, err := Parse("a = \"x\"\nb = 0x1_0\nc = 1.50\nd = true\ne = 1979-05-27 07:32:00")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"a": "x", "b": "16", "c": "1.50", "d": "true", "e": "1979-05-27 07:32:00"} {
		if got := table.Get(key).Text; got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}

// FuzzParse: no input makes Parse panic, and what it reads is what go-toml decodes.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "a = 1", "[[a]]\nb.c = \"x\"\n[a.d]\n", "[[a.b]]\n[[a.b.c]]\n[a.b.c.d]\n[[a.b]]\n[[a.b.c]]", "a = [1, {b = '''x'''}]", "a = 1979-05-27 07:32:00", "a = -inf", "\"\\u00e9\" = 0x1F"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		table, err := Parse(text)
		if err != nil {
			var wrong *Error
			if !errors.As(err, &wrong) || wrong.Line < 1 || wrong.Column < 1 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if got, want := shape(table.Native()), shape(table.decoded); got != want {
			t.Fatalf("%s\n%s", got, want)
		}
	})
}

// shape is a decoded value as text, without what dates and times say.
func shape(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, fmt.Sprintf("%q: %s", key, shape(v[key])))
		}
		return fmt.Sprint(parts)
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, shape(e))
		}
		return fmt.Sprint(parts)
	case int64, float64, bool:
		return fmt.Sprint(v)
	}
	return "text"
}
