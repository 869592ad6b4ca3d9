package capacity

import (
	"bytes"
	_ "embed" // prices.yaml
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/groundplan/groundplan/pipelines"
)

// DefaultPrices is the file of machine types and prices that ships with the program.
//
//go:embed prices.yaml
var DefaultPrices []byte

// Prices is a file of machine types and prices.
type Prices struct {
	AsOf      string     `yaml:"asOf"`
	Providers []Provider `yaml:"providers"`
}

// Provider is one that rents machines out.
type Provider struct {
	Name   string `yaml:"name"`
	Region string `yaml:"region"`
	// Control is what the control plane costs an hour, in US dollars.
	Control float64 `yaml:"control"`
	// Pods is how many pods of each node are no instances.
	Pods     int      `yaml:"pods"`
	Reserved Reserved `yaml:"reserved"`
	Types    []Type   `yaml:"types"`
}

// Reserved is what of a node is not for instances.
type Reserved struct {
	Memory Part[bytesOf] `yaml:"memory"`
	CPU    Part[millis]  `yaml:"cpu"`
	// System is what the pods that are no instances ask for.
	System struct {
		Memory bytesOf `yaml:"memory"`
		CPU    millis  `yaml:"cpu"`
	} `yaml:"system"`
}

// Part is a part of a resource: something fixed, something per pod, and shares of tiers.
type Part[Q bytesOf | millis] struct {
	Fixed  Q         `yaml:"fixed"`
	PerPod Q         `yaml:"perPod"`
	Tiers  []Tier[Q] `yaml:"tiers"`
}

// Tier is a share of the next so much of a resource; of all the rest when Next is 0.
type Tier[Q bytesOf | millis] struct {
	Next  Q       `yaml:"next"`
	Share shareOf `yaml:"share"`
}

// of is the part of a total on a node with that many pods.
func (p Part[Q]) of(total Q, pods int) Q {
	part := p.Fixed + p.PerPod*Q(pods)
	for _, t := range p.Tiers {
		if t.Next == 0 {
			t.Next = total
		}
		tier := min(t.Next, total)
		part += Q(float64(tier) * float64(t.Share))
		total -= tier
	}
	return part
}

// Type is a type of machine.
type Type struct {
	Name   string  `yaml:"name"`
	VCPU   int     `yaml:"vcpu"`
	Memory bytesOf `yaml:"memory"`
	// Price is US dollars an hour.
	Price float64 `yaml:"price"`
	// Pods is how many pods a node may have, by how its network is set up.
	Pods map[string]int `yaml:"pods"`
}

// ParsePrices reads such a file and says everything that is wrong with it. name is what errors call it.
func ParsePrices(name string, content []byte) (Prices, error) {
	var p Prices
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&p); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return Prices{}, fmt.Errorf("reading the prices in %s: %w", name, err)
	}
	if err := p.check(); err != nil {
		return Prices{}, fmt.Errorf("the prices in %s: %w", name, err)
	}
	return p, nil
}

func (p Prices) check() error {
	var faults []error
	if len(p.Providers) == 0 {
		faults = append(faults, errors.New("there are no providers"))
	}
	for i, provider := range p.Providers {
		if provider.Name == "" {
			faults = append(faults, fmt.Errorf("provider %d has no name", i+1))
		}
		if len(provider.Types) == 0 || !(provider.Control >= 0) || provider.Pods < 0 {
			faults = append(faults, fmt.Errorf("provider %s needs types, and control and pods that are not negative", provider.Name))
		}
		for _, t := range provider.Types {
			if t.Name == "" || t.VCPU <= 0 || t.Memory <= 0 || !(t.Price > 0) || len(t.Pods) == 0 {
				faults = append(faults, fmt.Errorf("type %q of %s needs a name, vcpu, memory, price and pods", t.Name, provider.Name))
			}
			for mode, pods := range t.Pods {
				if pods <= 0 {
					faults = append(faults, fmt.Errorf("type %s of %s has %d pods (%s)", t.Name, provider.Name, pods, mode))
				}
			}
		}
	}
	return errors.Join(faults...)
}

// The quantities of the file, as YAML: sizes and shares as in pipelines, processors as a number or in thousandths.
type (
	bytesOf int64   // 64Mi
	millis  int64   // 100m, or 2
	shareOf float64 // 6%
)

// UnmarshalText reads what pipelines.ParseSize reads.
func (b *bytesOf) UnmarshalText(text []byte) error {
	size, err := pipelines.ParseSize(string(text))
	*b = bytesOf(size)
	return err
}

// UnmarshalText reads what pipelines.ParseShare reads.
func (s *shareOf) UnmarshalText(text []byte) error {
	share, err := pipelines.ParseShare(string(text))
	*s = shareOf(share)
	return err
}

// UnmarshalText reads 250m or 2.
func (m *millis) UnmarshalText(text []byte) error {
	number, thousandths := strings.CutSuffix(string(text), "m")
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is no amount of processors: write 2 or 250m", text)
	}
	if !thousandths {
		n *= 1000
	}
	*m = millis(n)
	return nil
}
