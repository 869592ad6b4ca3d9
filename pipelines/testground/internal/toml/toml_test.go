package toml

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
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
		{"a", "1:2: expected `=` behind the key `a`, found the end of the file"},
		{"a = ", "1:5: expected a value, found the end of the file"},
		{"\n = 1", "2:2: expected a key, found '='"},
		{"a = 1 b = 2", "1:7: expected the end of the line, found 'b'"},
		{"a = x", "1:5: `x` is no value: texts stand in quotes"},
		{"a = 01", "1:5: `01` is no value"},
		{"a = 1__0", "1:5: `1__0` is no value"},
		{"a = .5", "1:5: `.5` is no value"},
		{"a = 9223372036854775808", "1:5: 9223372036854775808 doesn't fit into 64 bits"},
		{"a = 1e999", "1:5: 1e999 is too large"},
		{"a = ++inf", "`++inf` is no value"},
		{"a = \"x\nb = 1", "1:5: the text that begins here isn't closed on its line"},
		{"a = 'x", "1:5: the text that begins here isn't closed on its line"},
		{"é = 1", "1:1: expected a key, found 'é'"},
		{"ä = \"\"\"x", "expected a key"},
		{"a = \"\"\"x", "1:5: the text that begins here isn't closed"},
		{`a = "\q"`, "1:6: `\\` and 'q' is no escape"},
		{`a = "\uD800"`, "1:6: `\\uD800` is no character"},
		{`a = "\u12`, "1:6: `\\u` needs 4 hexadecimal digits"},
		{"a = \"\x01\"", "a text can't hold the control character"},
		{"# \x01", "a comment can't hold the control character"},
		{"a = \"\xff\"", "1:6: the file isn't UTF-8"},
		{"a = [1 2]", "1:8: expected `,` or `]` in an array, found '2'"},
		{"a = {b = 1 c = 2}", "expected `,` or `}` in a table"},
		{"a = 1\na = 2", "2:1: `a` stands in line 1 already"},
		{"[a]\n[a]", "2:1: `a` stands in line 1 already"},
		{"a.b = 1\n[a]", "2:1: `a` stands in line 1 already"},
		{"[a]\nb = 1\n[a.b]", "3:1: `b` stands in line 2 already"},
		{"a = 1\n[a.b]", "2:1: `a` is an integer since line 1, and can't be added to"},
		{"a = {}\n[a.b]", "2:1: `a` is a table since line 1"},
		{"a = []\n[[a]]", "2:1: `a` is an array since line 1"},
		{"[a.b]\n[x]\na.b = 1\n[y]\n", ""},
		{"[a]\n[a.b]\n[c]\n[[a]]", "4:1: `a` is a table since line 1"},
		{"[a.b]\n[a]\nb.c = 1", "3:1: `b` is a table since line 1"},
		{"[a", "1:3: expected `]` behind the name of a table"},
		{"[[a]", "1:4: expected `]]` behind the name of an array of tables"},
		{"a = " + strings.Repeat("[", 100), "nested more than 64 deep"},
		{strings.Repeat("a.", 100) + "a = 1", "more than 64 parts"},
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

func TestInline(t *testing.T) {
	const text = `a = {b = [1, 2.0, "x\ny", true, 1979-05-27], "c d" = {}}`
	table, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := "a = " + table.Get("a").Inline(); got != text {
		t.Errorf("%s\nwant %s", got, text)
	}
}

func TestEncode(t *testing.T) {
	got, err := Encode(map[string]any{
		"z": int64(1), "a": "x\x01", "f": 2.0, "list": []any{int64(1), "y"}, "env": map[string]string{"k": "v"}, "words": []string{"p"},
		"t": map[string]any{"deep": map[string]any{"on": true}}, "many": []any{map[string]any{"n": 1}, map[string]any{}}, "mixed": []any{map[string]any{"n": 1}, 2},
	})
	const want = `a = "x\u0001"
env = {k = "v"}
f = 2.0
list = [1, "y"]
mixed = [{n = 1}, 2]
words = ["p"]
z = 1

[[many]]
n = 1

[[many]]

[t]

[t.deep]
on = true
`
	if err != nil || got != want {
		t.Errorf("%v\n%s", err, got)
	}
	if _, err := Encode(map[string]any{"a": map[string]any{"b": struct{}{}}}); err == nil || !strings.Contains(err.Error(), "a.b: a struct {} can't be written") {
		t.Errorf("%v", err)
	}
}

// FuzzParse: no input makes the parser panic, and what is read can be written and read again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "a = 1", "[[a]]\nb.c = \"x\"\n[a.d]\n", "a = [1, {b = '''x'''}]", "a = 1979-05-27 07:32:00", "a = -inf", "\"\\u00e9\" = 0x1F"} {
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
		written, err := Encode(table.Native())
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if strings.Contains(written, "nan") {
			return // which equals nothing
		}
		if !reflect.DeepEqual(table.Native(), again.Native()) {
			t.Fatalf("%v\n%v\n%s", table.Native(), again.Native(), written)
		}
	})
}
