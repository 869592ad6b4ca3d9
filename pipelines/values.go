package pipelines

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Values are named values: bool, int64, float64 or string. Unlike a bare map they are the same after a round trip
// through JSON: a whole float64 is written with a decimal point, and a number without one is read as an int64.
type Values map[string]any

// MarshalJSON writes whole floats as 2.0.
func (v Values) MarshalJSON() ([]byte, error) {
	if v == nil {
		return []byte("null"), nil
	}
	out := make(map[string]any, len(v))
	for name, value := range v {
		out[name] = value
		if f, ok := value.(float64); ok && f == math.Trunc(f) && !math.IsInf(f, 0) {
			out[name] = json.RawMessage(strconv.FormatFloat(f, 'e', -1, 64))
			if math.Abs(f) < 1e15 {
				out[name] = json.RawMessage(strconv.FormatFloat(f, 'f', 1, 64))
			}
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads numbers without point or exponent as int64.
func (v *Values) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var raw map[string]any
	if err := decoder.Decode(&raw); err != nil {
		return err
	}
	if raw == nil {
		*v = nil
		return nil
	}
	for name, value := range raw {
		n, ok := value.(json.Number)
		if !ok {
			continue
		}
		var err error
		if strings.ContainsAny(n.String(), ".eE") {
			raw[name], err = n.Float64()
		} else {
			raw[name], err = n.Int64()
		}
		if err != nil {
			return fmt.Errorf("reading the value %s: %w", name, err)
		}
	}
	*v = raw
	return nil
}
