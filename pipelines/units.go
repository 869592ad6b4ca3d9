package pipelines

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time; in JSON and YAML it is written as in Go: `80ms`, `2m`.
type Duration time.Duration

// Size is a number of bytes; in JSON and YAML it is written with a unit: `64Mi`, `10MB`.
type Size int64

// Bandwidth is a rate in bits per second; in JSON and YAML it is written with a unit: `20Mbit`.
type Bandwidth int64

// Share is a part of a whole between 0 and 1; in JSON and YAML it is written in percent: `5%`.
type Share float64

// maxQuantityText bounds the text of one number with its unit, so that a megabyte of digits costs nothing.
const maxQuantityText = 64

// unit is one way to write a multiple of a quantity's base.
type unit struct {
	name   string
	factor int64
}

// sizeUnits and bandwidthUnits list the canonical spelling of a factor before its other spellings.
var (
	sizeUnits = []unit{
		{"Ti", 1 << 40}, {"TiB", 1 << 40}, {"TB", 1e12}, {"T", 1e12},
		{"Gi", 1 << 30}, {"GiB", 1 << 30}, {"GB", 1e9}, {"G", 1e9},
		{"Mi", 1 << 20}, {"MiB", 1 << 20}, {"MB", 1e6}, {"M", 1e6},
		{"Ki", 1 << 10}, {"KiB", 1 << 10}, {"kB", 1e3}, {"KB", 1e3}, {"k", 1e3},
		{"B", 1},
	}
	bandwidthUnits = []unit{
		{"Tbit", 1e12}, {"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"Kbit", 1e3}, {"bit", 1},
	}
)

// ParseDuration reads a duration as Go writes it. A bare number, even 0, is an error.
func ParseDuration(text string) (Duration, error) {
	if err := checkQuantityText(text, "duration", "80ms, 2m"); err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		if days, ok := strings.CutSuffix(text, "d"); ok && isNumber(days) {
			return 0, fmt.Errorf("`%s` is not a duration: there is no unit for days, use hours (24h)", text)
		}
		if isOverflow(text) {
			return 0, fmt.Errorf("`%s` is too long for a duration (at most about 292 years)", text)
		}
		return 0, fmt.Errorf("`%s` is not a duration (write it as 80ms, 2m, 1h30m)", text)
	}
	return Duration(d), nil
}

// isOverflow tells a duration that is well formed but too long from one that is malformed: with every digit made a 0
// it would have been read.
func isOverflow(text string) bool {
	zeros := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return '0'
		}
		return r
	}, text)
	_, err := time.ParseDuration(zeros)
	return err == nil
}

// ParseSize reads a number of bytes with its unit: `64Mi`, `10MB`, `1.5Gi`, `512B`.
func ParseSize(text string) (Size, error) {
	n, err := parseQuantity(text, "size", "64Mi, 10MB", sizeUnits)
	return Size(n), err
}

// ParseBandwidth reads a rate in bits per second with its unit: `20Mbit`.
func ParseBandwidth(text string) (Bandwidth, error) {
	n, err := parseQuantity(text, "bandwidth", "20Mbit, 1Gbit", bandwidthUnits)
	return Bandwidth(n), err
}

// ParseShare reads a part of a whole in percent, from 0% to 100%.
func ParseShare(text string) (Share, error) {
	if err := checkQuantityText(text, "share", "5%, 0.1%"); err != nil {
		return 0, err
	}
	number, ok := strings.CutSuffix(text, "%")
	if !ok || !isNumber(number) {
		return 0, fmt.Errorf("`%s` is not a share (write it in percent: 5%%, 0.1%%)", text)
	}
	// The exponent divides by 100 in decimal, so that 7% is the double nearest to 0.07.
	v, err := strconv.ParseFloat(number+"e-2", 64)
	if err != nil || v < 0 || v > 1 {
		return 0, fmt.Errorf("`%s` is outside of 0%% to 100%%", text)
	}
	return Share(v), nil
}

// checkQuantityText refuses what no quantity looks like, and names the unit that a bare number lacks.
func checkQuantityText(text, what, examples string) error {
	switch {
	case text == "":
		return fmt.Errorf("a %s is missing (write it as %s)", what, examples)
	case len(text) > maxQuantityText:
		return fmt.Errorf("a %s has at most %d characters", what, maxQuantityText)
	case isNumber(strings.TrimLeft(text, "+-")):
		return fmt.Errorf("the bare number `%s` has no unit: a %s is written as %s", text, what, examples)
	}
	return nil
}

func parseQuantity(text, what, examples string, units []unit) (int64, error) {
	if err := checkQuantityText(text, what, examples); err != nil {
		return 0, err
	}
	end := strings.LastIndexAny(text, "0123456789.") + 1
	number, suffix := text[:end], text[end:]
	factor := int64(0)
	for _, u := range units {
		if u.name == suffix {
			factor = u.factor
		}
	}
	if factor == 0 && isNumber(number) {
		return 0, fmt.Errorf("`%s` has no unit that a %s knows%s", text, what, orUnits(suffix, units))
	}
	exact, ok := new(big.Rat).SetString(number)
	if !ok || !isNumber(number) {
		return 0, fmt.Errorf("`%s` is not a %s (write it as %s)", text, what, examples)
	}
	exact.Mul(exact, new(big.Rat).SetInt64(factor))
	if !exact.IsInt() {
		return 0, fmt.Errorf("`%s` is not a whole number of %s", text, units[len(units)-1].name)
	}
	if !exact.Num().IsInt64() {
		return 0, fmt.Errorf("`%s` is too large for a %s (at most %s)", text, what, formatQuantity(math.MaxInt64, units))
	}
	return exact.Num().Int64(), nil
}

// orUnits says which unit was likely meant, or lists them.
func orUnits(suffix string, units []unit) string {
	names := make([]string, 0, len(units))
	for _, u := range units {
		names = append(names, u.name)
	}
	for _, n := range names {
		if strings.EqualFold(n, suffix) || strings.EqualFold(strings.TrimSuffix(n, "it")+"ps", suffix) ||
			strings.EqualFold(n+"/s", suffix) {
			return fmt.Sprintf(" (did you mean `%s`?)", n)
		}
	}
	return fmt.Sprintf(" (known: %s)", strings.Join(names, ", "))
}

// isNumber says whether text is an unsigned decimal number without exponent.
func isNumber(text string) bool {
	digits, dots := 0, 0
	for _, r := range text {
		switch {
		case r >= '0' && r <= '9':
			digits++
		case r == '.':
			dots++
		default:
			return false
		}
	}
	return digits > 0 && dots <= 1
}

// formatQuantity writes n with the largest unit that divides it.
func formatQuantity(n int64, units []unit) string {
	base := units[len(units)-1]
	if n == 0 {
		return "0" + base.name
	}
	best := base
	for _, u := range units {
		if n%u.factor == 0 && u.factor > best.factor {
			best = u
		}
	}
	return strconv.FormatInt(n/best.factor, 10) + best.name
}

// String is the canonical text: as Go writes it, without trailing zero units and in ASCII.
func (d Duration) String() string {
	text := strings.Replace(time.Duration(d).String(), "µ", "u", 1)
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// String is the canonical text.
func (s Size) String() string { return formatQuantity(int64(s), sizeUnits) }

// String is the canonical text.
func (b Bandwidth) String() string { return formatQuantity(int64(b), bandwidthUnits) }

// String is the canonical text: in percent, with the fewest digits that read back as the same share.
func (s Share) String() string {
	if s == 0 {
		return "0%"
	}
	mantissa, exponent, ok := strings.Cut(strconv.FormatFloat(float64(s), 'e', -1, 64), "e")
	if !ok {
		return strconv.FormatFloat(float64(s), 'g', -1, 64) // not a number, or infinite: no share, but say what it is
	}
	exp, _ := strconv.Atoi(exponent)
	percent, _ := new(big.Rat).SetString(mantissa + "e" + strconv.Itoa(exp+2))
	places := max(0, len(mantissa)-exp)
	text := percent.FloatString(places)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + "%"
}

// MarshalText writes the canonical text, in JSON too.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// MarshalText writes the canonical text, in JSON too.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalText writes the canonical text, in JSON too.
func (b Bandwidth) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// MarshalText writes the canonical text, in JSON too.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error { return unmarshal(d, text, ParseDuration) }

// UnmarshalText reads what ParseSize reads.
func (s *Size) UnmarshalText(text []byte) error { return unmarshal(s, text, ParseSize) }

// UnmarshalText reads what ParseBandwidth reads.
func (b *Bandwidth) UnmarshalText(text []byte) error { return unmarshal(b, text, ParseBandwidth) }

// UnmarshalText reads what ParseShare reads.
func (s *Share) UnmarshalText(text []byte) error { return unmarshal(s, text, ParseShare) }

func unmarshal[T any](into *T, text []byte, parse func(string) (T, error)) error {
	v, err := parse(string(text))
	if err == nil {
		*into = v
	}
	return err
}
