package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as `64Mi` or `10MB`.
type Size int64

// Bandwidth is a rate in bits per second, written as `20Mbit`.
type Bandwidth int64

// Share is a part of a whole, between 0 and 1, written as `5%`.
type Share float64

// Rates, so that a bandwidth can be written as 20 * sdk.Mbit.
const (
	Kbit Bandwidth = 1e3
	Mbit Bandwidth = 1e6
	Gbit Bandwidth = 1e9
)

// Value is what a parameter can be read as.
type Value interface {
	string | bool | int | int64 | uint64 | float64 | time.Duration | Size | Bandwidth | Share
}

// ErrNoParam is in the error for a parameter that is not there.
var ErrNoParam = errors.New("the parameter is not set")

// Param is a parameter of the group or stage. One that isn't there, or isn't written as a T, is an error that names it.
func Param[T Value](run *Run, name string) (T, error) {
	var value T
	text, there := run.Params[name]
	if !there {
		return value, fmt.Errorf("parameter %s: %w", name, ErrNoParam)
	}
	if err := parse(text, any(&value)); err != nil {
		return value, fmt.Errorf("parameter %s is %q: %w", name, text, err)
	}
	return value, nil
}

// ParamOr is Param with a value for when the parameter isn't there.
func ParamOr[T Value](run *Run, name string, fallback T) (T, error) {
	if _, there := run.Params[name]; !there {
		return fallback, nil
	}
	return Param[T](run, name)
}

// ParamJSON reads a parameter that is a JSON document: a list, an object.
func ParamJSON[T any](run *Run, name string) (T, error) {
	var value T
	text, there := run.Params[name]
	if !there {
		return value, fmt.Errorf("parameter %s: %w", name, ErrNoParam)
	}
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return value, fmt.Errorf("parameter %s is %q: it should be JSON: %w", name, text, err)
	}
	return value, nil
}

// parse reads text into a pointer to one of the types of Value.
func parse(text string, into any) (err error) {
	want := ""
	switch v := into.(type) {
	case *string:
		*v = text
	case *bool:
		want = "true or false"
		*v, err = strconv.ParseBool(text)
	case *int:
		want = "a whole number"
		*v, err = strconv.Atoi(text)
	case *int64:
		want = "a whole number"
		*v, err = strconv.ParseInt(text, 10, 64)
	case *uint64:
		want = "a whole number from 0 on"
		*v, err = strconv.ParseUint(text, 10, 64)
	case *float64:
		want = "a number"
		*v, err = strconv.ParseFloat(text, 64)
	case *time.Duration:
		want = "a duration like 80ms or 2m"
		*v, err = time.ParseDuration(text)
	case *Size:
		want = "a size like 64Mi or 10MB"
		*v, err = quantity[Size](text, sizes)
	case *Bandwidth:
		want = "a bandwidth like 20Mbit"
		*v, err = quantity[Bandwidth](text, rates)
	case *Share:
		want = "a share like 5%"
		*v, err = parseShare(text)
	default:
		return fmt.Errorf("a %T can't be read", into)
	}
	if err != nil {
		return fmt.Errorf("it should be %s", want)
	}
	return nil
}

func parseShare(text string) (Share, error) {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(number, 64)
	if percent {
		n /= 100
	}
	if err == nil && !(n >= 0 && n <= 1) {
		err = errors.New("out of range")
	}
	return Share(n), err
}

var (
	sizes = map[string]int64{
		"": 1, "B": 1, "k": 1e3, "kB": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9, "T": 1e12, "TB": 1e12,
		"Ki": 1 << 10, "KiB": 1 << 10, "Mi": 1 << 20, "MiB": 1 << 20, "Gi": 1 << 30, "GiB": 1 << 30, "Ti": 1 << 40, "TiB": 1 << 40,
	}
	rates = map[string]int64{"": 1, "bit": 1, "kbit": 1e3, "Kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9, "Tbit": 1e12}
)

// quantity reads a number with one of the units; a fraction of the smallest unit is an error.
func quantity[T ~int64](text string, units map[string]int64) (T, error) {
	end := strings.LastIndexAny(text, "0123456789.") + 1
	factor, known := units[strings.TrimSpace(text[end:])]
	number := text[:end]
	if !known || end == 0 || len(number) > 40 || strings.Trim(number, "0123456789.") != "" {
		return 0, errors.New("not a quantity")
	}
	n, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, errors.New("not a number")
	}
	n.Mul(n, new(big.Rat).SetInt64(factor))
	if !n.IsInt() || n.Num().Cmp(big.NewInt(math.MaxInt64)) > 0 {
		return 0, errors.New("out of range")
	}
	return T(n.Num().Int64()), nil
}
