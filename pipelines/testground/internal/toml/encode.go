package toml

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Encode writes a table of plain Go values as a document: first the simple values of each table, then its tables, both
// sorted by key.
func Encode(table map[string]any) (string, error) {
	var b strings.Builder
	if err := encodeTable(&b, "", table); err != nil {
		return "", err
	}
	return b.String(), nil
}

func encodeTable(b *strings.Builder, path string, table map[string]any) error {
	keys := slices.Sorted(maps.Keys(table))
	var nested []string
	for _, key := range keys {
		if tables(table[key]) != nil {
			nested = append(nested, key)
			continue
		}
		text, err := encodeValue(table[key])
		if err != nil {
			return fmt.Errorf("%s%s: %w", path, key, err)
		}
		fmt.Fprintf(b, "%s = %s\n", formatKey(key), text)
	}
	for _, key := range nested {
		name, header := path+formatKey(key), "\n[%s]\n"
		if _, single := table[key].(map[string]any); !single {
			header = "\n[[%s]]\n"
		}
		for _, t := range tables(table[key]) {
			fmt.Fprintf(b, header, name)
			if err := encodeTable(b, name+".", t); err != nil {
				return err
			}
		}
	}
	return nil
}

// tables are those that have headers of their own: one, or all of an array that holds nothing else.
func tables(v any) []map[string]any {
	switch v := v.(type) {
	case map[string]any:
		return []map[string]any{v}
	case []map[string]any:
		return v
	case []any:
		var all []map[string]any
		for _, e := range v {
			t, ok := e.(map[string]any)
			if !ok {
				return nil
			}
			all = append(all, t)
		}
		return all
	}
	return nil
}

func encodeValue(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return quote(v), nil
	case bool, int, int64:
		return fmt.Sprint(v), nil
	case float64:
		return formatFloat(v), nil
	case map[string]string:
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, formatKey(key)+" = "+quote(v[key]))
		}
		return "{" + strings.Join(parts, ", ") + "}", nil
	case []string:
		var parts []string
		for _, e := range v {
			parts = append(parts, quote(e))
		}
		return "[" + strings.Join(parts, ", ") + "]", nil
	case []any:
		var parts []string
		for _, e := range v {
			text, err := encodeValue(e)
			if err != nil {
				return "", err
			}
			parts = append(parts, text)
		}
		return "[" + strings.Join(parts, ", ") + "]", nil
	case map[string]any:
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			text, err := encodeValue(v[key])
			if err != nil {
				return "", err
			}
			parts = append(parts, formatKey(key)+" = "+text)
		}
		return "{" + strings.Join(parts, ", ") + "}", nil
	}
	return "", fmt.Errorf("a %T can't be written as TOML", v)
}

// quote writes a text on one line, with the escapes that TOML knows.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func formatKey(key string) string {
	for i := range len(key) {
		if !isBare(key[i]) {
			return quote(key)
		}
	}
	if key == "" {
		return `""`
	}
	return key
}

// formatFloat writes a number so that it is read as one again, not as an integer.
func formatFloat(v float64) string {
	text := strings.ToLower(strconv.FormatFloat(v, 'g', -1, 64))
	if strings.ContainsAny(text, ".einn") {
		return text
	}
	return text + ".0"
}
