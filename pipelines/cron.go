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

// Due says whether the schedule has a turn begin at t. Its fields all have to fit, also the day of the month and that of
// the week, as Temporal reads them.
func (s SuiteSchedule) Due(t time.Time) bool {
	times := s.Times(t, t, 1)
	return len(times) == 1
}

// Times are when the schedule has turns begin from one time to another, both included: the first of them, at most so many.
func (s SuiteSchedule) Times(from, to time.Time, most int) []time.Time {
	asked := strings.Fields(s.Cron)
	if len(asked) == 1 {
		asked = strings.Fields(shortCrons[s.Cron])
	}
	zone, err := time.LoadLocation(s.Timezone)
	if err != nil || len(asked) != len(cronFields) {
		return nil
	}
	var times []time.Time
	t := from.Truncate(time.Minute)
	if t.Before(from) {
		t = t.Add(time.Minute)
	}
	for ; !t.After(to) && len(times) < most; t = t.Add(time.Minute) {
		if fits(asked, t.In(zone)) {
			times = append(times, t)
		}
	}
	return times
}

// shortCrons are what the shorthands stand for.
var shortCrons = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *",
}

// fits says whether a minute is one of an expression's that was checked.
func fits(asked []string, t time.Time) bool {
	is := []int{t.Minute(), t.Hour(), t.Day(), int(t.Month()), int(t.Weekday())}
	for i, f := range cronFields {
		if !f.has(asked[i], is[i]) && (i < 4 || is[i] != 0 || !f.has(asked[i], 7)) { // Sunday is 0 and 7
			return false
		}
	}
	return true
}

// has says whether a field that was checked takes a value.
func (f cronField) has(asked string, value int) bool {
	for part := range strings.SplitSeq(asked, ",") {
		span, step, stepped := strings.Cut(part, "/")
		every := 1
		if stepped {
			every, _ = strconv.Atoi(step)
		}
		low, high := f.min, f.max
		if span != "*" {
			first, last, isRange := strings.Cut(span, "-")
			low, _ = f.value(first)
			switch {
			case isRange:
				high, _ = f.value(last)
			case !stepped:
				high = low
			}
		}
		if value >= low && value <= high && (value-low)%max(every, 1) == 0 {
			return true
		}
	}
	return false
}

func checkTimezone(v any) error {
	text, _ := v.(string)
	if _, err := time.LoadLocation(text); err != nil || text == "" || text == "Local" {
		return fmt.Errorf("`%s` is not a time zone (like Europe/Lisbon or UTC)", clip(text))
	}
	return nil
}
