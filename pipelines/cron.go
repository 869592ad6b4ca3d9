package pipelines

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // time zones are checked the same on a machine without a database of them
)

// cronField is one of the five fields.
type cronField struct {
	name     string
	min, max int
	names    []string // of the values from min on
}

var cronFields = []cronField{
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day of the month", 1, 31, nil},
	{"month", 1, 12, strings.Split("jan feb mar apr may jun jul aug sep oct nov dec", " ")},
	{"day of the week", 0, 7, strings.Split("sun mon tue wed thu fri sat", " ")},
}

// checkCron says what is wrong with a cron expression.
func checkCron(v any) error {
	text, _ := v.(string)
	if strings.HasPrefix(text, "@") {
		short := []string{"@hourly", "@daily", "@weekly", "@monthly", "@yearly"}
		if !slices.Contains(short, text) {
			return fmt.Errorf("`%s` is not one of %s", clip(text), strings.Join(short, ", "))
		}
		return nil
	}
	fields := strings.Fields(text)
	if len(fields) != len(cronFields) {
		return fmt.Errorf("a cron expression has 5 fields (minute, hour, day of the month, month, day of the week), this one has %d", len(fields))
	}
	for i, f := range fields {
		for part := range strings.SplitSeq(f, ",") {
			if err := cronFields[i].check(part); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f cronField) check(part string) error {
	span, step, stepped := strings.Cut(part, "/")
	if stepped {
		if n, err := strconv.Atoi(step); err != nil || n < 1 || n > f.max {
			return fmt.Errorf("`%s` is not a step in the %s (1 to %d)", clip(step), f.name, f.max)
		}
	}
	if span == "*" {
		return nil
	}
	first, last, isRange := strings.Cut(span, "-")
	low, err := f.value(first)
	if err != nil || !isRange {
		return err
	}
	high, err := f.value(last)
	if err == nil && high < low {
		err = fmt.Errorf("`%s` in the %s runs backwards", clip(span), f.name)
	}
	return err
}

func (f cronField) value(text string) (int, error) {
	if i := slices.Index(f.names, strings.ToLower(text)); i >= 0 {
		return f.min + i, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.min || n > f.max {
		return 0, fmt.Errorf("`%s` is not a %s (%d to %d)", clip(text), f.name, f.min, f.max)
	}
	return n, nil
}

func checkTimezone(v any) error {
	text, _ := v.(string)
	if _, err := time.LoadLocation(text); err != nil || text == "" || text == "Local" {
		return fmt.Errorf("`%s` is not a time zone (like Europe/Lisbon or UTC)", clip(text))
	}
	return nil
}
