package pipelines

import "time"

// Duration is a length of time; in JSON and YAML it is written as in Go: `80ms`, `2m`.
type Duration time.Duration

// Size is a number of bytes; in JSON and YAML it is written with a unit: `64Mi`, `10MB`.
type Size int64

// Bandwidth is a rate in bits per second; in JSON and YAML it is written with a unit: `20Mbit`.
type Bandwidth int64

// Share is a part of a whole between 0 and 1; in JSON and YAML it is written in percent: `5%`.
type Share float64
