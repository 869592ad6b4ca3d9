package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	sdkworker "go.temporal.io/sdk/worker"
	"gopkg.in/yaml.v3"

	"github.com/groundplan/groundplan/activities/export"
	"github.com/groundplan/groundplan/activities/kubernetes"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/runs/retention"
)

// Config says where state lives and which services are used. What isn't named is embedded.
type Config struct {
	// Home is the state folder; it is created when it isn't there.
	Home runs.Home
	// Temporal is `host:port` of a Temporal frontend; empty: the embedded one.
	Temporal string
	// TemporalKey is the API key that an external Temporal asks for; it is sent over TLS, or in the clear over loopback.
	TemporalKey string
	// Namespace is the Temporal namespace.
	Namespace string
	// Redis is the URL of a Redis for the sync gateways; empty: one inside each run's sidecar.
	Redis string
	// Elasticsearch is the URL that collect stages push to; empty: none.
	Elasticsearch string
	// ElasticsearchKey is the encoded API key that it asks for; it goes before ElasticsearchUser and ElasticsearchPassword,
	// which go before those in the URL.
	ElasticsearchKey string
	// ElasticsearchUser and ElasticsearchPassword are for basic authentication.
	ElasticsearchUser, ElasticsearchPassword string
	// ElasticsearchCA is the path of a PEM file with the authorities that may have signed its certificate; empty: the machine's.
	ElasticsearchCA string
	// Prometheus is the URL of a Pushgateway or a remote write endpoint, and OTLP that of an OTLP/HTTP endpoint, to which
	// collect stages that export metrics send them; empty: they are only written to files.
	Prometheus, OTLP string
	// OTLPHeaders go with every request to OTLP: `authorization=Bearer%20TOKEN`.
	OTLPHeaders string
	// KubeContext is the context of the kubeconfig for runs on Kubernetes; empty: the current one.
	KubeContext string
	// KubeNamespace is where instances on Kubernetes go, and KubeSystemNamespace where groundplan's chart is installed; empty:
	// groundplan and groundplan-system.
	KubeNamespace, KubeSystemNamespace string
	// KubeNodeSelector and KubeTolerations say which nodes instances may go to: `pool=tests`, `dedicated=tests:NoSchedule`.
	KubeNodeSelector, KubeTolerations string
	// Registry is where images go that the nodes of a cluster pull, HOST[:PORT][/PATH].
	Registry string
	// UIPort is where `groundplan dev` serves its page on loopback; 0: any free port.
	UIPort int
	// Retention says which runs a worker that stays up removes, once a day, and `groundplan gc` by default.
	Retention retention.Policy
	// Log takes what the worker has to say; nil: nothing is said. The embedded server writes into a file of its own.
	Log *slog.Logger
	// Register adds what the worker carries out; nil: the workflows and activities of groundplan.
	Register func(Config, sdkworker.Registry) error
}

// DefaultNamespace is the Temporal namespace used when none is named.
const DefaultNamespace = "default"

// setting is one thing that can be said by a flag, a variable or a line of config.yaml. All three have the same name:
// `kube-context` is --kube-context, GROUNDPLAN_KUBE_CONTEXT and `kube-context:`.
type setting struct {
	name string
	// set checks the value and puts it into c.
	set func(c *Config, value string) error
	// inFile says whether config.yaml may say it.
	inFile bool
}

var settings = []setting{
	{"home", setHome, false},
	{"temporal", setAddress(func(c *Config) *string { return &c.Temporal }), true},
	{"temporal-api-key", setText(func(c *Config) *string { return &c.TemporalKey }), true},
	{"namespace", setText(func(c *Config) *string { return &c.Namespace }), true},
	{"redis", setURL(func(c *Config) *string { return &c.Redis }, "redis", "rediss", "unix"), true},
	{"elasticsearch", setURL(func(c *Config) *string { return &c.Elasticsearch }, "http", "https"), true},
	{"elasticsearch-api-key", setText(func(c *Config) *string { return &c.ElasticsearchKey }), true},
	{"elasticsearch-user", setText(func(c *Config) *string { return &c.ElasticsearchUser }), true},
	{"elasticsearch-password", setText(func(c *Config) *string { return &c.ElasticsearchPassword }), true},
	{"elasticsearch-ca", setText(func(c *Config) *string { return &c.ElasticsearchCA }), true},
	{"prometheus", setURL(func(c *Config) *string { return &c.Prometheus }, "http", "https"), true},
	{"otlp", setURL(func(c *Config) *string { return &c.OTLP }, "http", "https"), true},
	{"otlp-headers", setHeaders, true},
	{"kube-context", setText(func(c *Config) *string { return &c.KubeContext }), true},
	{"kube-namespace", setText(func(c *Config) *string { return &c.KubeNamespace }), true},
	{"kube-system-namespace", setText(func(c *Config) *string { return &c.KubeSystemNamespace }), true},
	{"kube-node-selector", setNodeSelector, true},
	{"kube-tolerations", setTolerations, true},
	{"registry", setText(func(c *Config) *string { return &c.Registry }), true},
	{"ui-port", setPort, true},
	{"retention-age", setAge, true},
	{"retention-runs", setRuns, true},
	{"retention-size", setSize, true},
}

// Variable is the environment variable of a setting: GROUNDPLAN_KUBE_CONTEXT for `kube-context`.
func Variable(name string) string {
	return "GROUNDPLAN_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// LoadConfig works out the configuration: a flag goes before a GROUNDPLAN_* variable, that before
// $GROUNDPLAN_HOME/config.yaml, that before the default. flags holds those that were given, by name; an empty value there
// sets back to the default what a variable or the file says. Every fault is reported at once.
func LoadConfig(flags map[string]string, getenv func(string) string) (Config, error) {
	config := Config{Namespace: DefaultNamespace}
	values, faults := said(flags, getenv)
	home, ok := values["home"]
	if !ok || home.value == "" {
		folder, err := defaultHome(getenv)
		if err != nil {
			return Config{}, err
		}
		home = value{folder, "the default home"}
	}
	if err := setHome(&config, home.value); err != nil {
		return Config{}, fmt.Errorf("%s: %w", home.from, err)
	}
	delete(values, "home")

	file, err := readFile(filepath.Join(string(config.Home), "config.yaml"))
	if err != nil {
		return Config{}, errors.Join(append(faults, err)...)
	}
	for name, v := range file {
		if _, said := values[name]; !said {
			values[name] = v
		}
	}
	for _, s := range settings {
		v, ok := values[s.name]
		if !ok || v.value == "" {
			continue
		}
		if err := s.set(&config, v.value); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", v.from, err))
		}
	}
	return config, errors.Join(faults...)
}

// value is a text and who said it.
type value struct{ value, from string }

func said(flags map[string]string, getenv func(string) string) (map[string]value, []error) {
	values := map[string]value{}
	known := map[string]bool{}
	for _, s := range settings {
		known[s.name] = true
		if v := getenv(Variable(s.name)); v != "" {
			values[s.name] = value{v, Variable(s.name)}
		}
		if v, ok := flags[s.name]; ok {
			values[s.name] = value{v, "--" + s.name}
		}
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		if !known[name] {
			faults = append(faults, fmt.Errorf("--%s is not a setting", name))
		}
	}
	return values, faults
}

func readFile(path string) (map[string]value, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return parseFile(path, content)
}

func parseFile(path string, content []byte) (map[string]value, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(document.Content) == 0 {
		return nil, nil // empty, or nothing but comments
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: must be lines of `name: value`", path, root.Line)
	}
	values := map[string]value{}
	var faults []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		at := fmt.Sprintf("%s:%d", path, key.Line)
		switch {
		case key.Value == "home":
			faults = append(faults, fmt.Errorf("%s: `home` can't be said in the home itself; use --home or %s", at, Variable("home")))
		case !slices.ContainsFunc(settings, func(s setting) bool { return s.name == key.Value }):
			faults = append(faults, fmt.Errorf("%s: unknown key %q; known are %s", at, key.Value, strings.Join(fileKeys(), ", ")))
		case values[key.Value].from != "":
			faults = append(faults, fmt.Errorf("%s: %s is said twice", at, key.Value))
		case node.Kind != yaml.ScalarNode:
			faults = append(faults, fmt.Errorf("%s: %s must be one plain value", at, key.Value))
		default:
			text := node.Value
			if node.Tag == "!!null" {
				text = ""
			}
			values[key.Value] = value{text, at}
		}
	}
	return values, errors.Join(faults...)
}

func fileKeys() []string {
	var keys []string
	for _, s := range settings {
		if s.inFile {
			keys = append(keys, s.name)
		}
	}
	return keys
}

// defaultHome is the XDG data directory's groundplan folder.
func defaultHome(getenv func(string) string) (string, error) {
	if data := getenv("XDG_DATA_HOME"); filepath.IsAbs(data) { // the XDG specification has relative ones ignored
		return filepath.Join(data, "groundplan"), nil
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "share", "groundplan"), nil
	}
	return "", fmt.Errorf("no home for groundplan's state: set %s (neither XDG_DATA_HOME nor HOME is set)", Variable("home"))
}

func setHome(c *Config, text string) error {
	path, err := filepath.Abs(text)
	if err != nil {
		return fmt.Errorf("home %q: %w", text, err)
	}
	c.Home = runs.Home(path)
	return nil
}

func setText(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, text string) error {
		*field(c) = text
		return nil
	}
}

func setNodeSelector(c *Config, text string) error {
	_, err := kubernetes.ParseNodeSelector(text)
	c.KubeNodeSelector = text
	return err
}

func setTolerations(c *Config, text string) error {
	_, err := kubernetes.ParseTolerations(text)
	c.KubeTolerations = text
	return err
}

func setAddress(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, text string) error {
		host, port, err := net.SplitHostPort(text)
		if err != nil || host == "" {
			return fmt.Errorf("%q is not an address like localhost:7233", text)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q has no port between 1 and 65535", text)
		}
		*field(c) = text
		return nil
	}
}

func setURL(field func(*Config) *string, schemes ...string) func(*Config, string) error {
	return func(c *Config, text string) error {
		u, err := url.Parse(text)
		// The text itself may hold a password: it is not repeated.
		if err != nil || !slices.Contains(schemes, u.Scheme) {
			return fmt.Errorf("must be a URL that begins with %s://", strings.Join(schemes, ":// or "))
		}
		if u.Host == "" && u.Scheme != "unix" {
			return errors.New("the URL names no host")
		}
		*field(c) = text
		return nil
	}
}

func setHeaders(c *Config, text string) error {
	_, err := export.ParseHeaders(text)
	c.OTLPHeaders = text
	return err
}

func setAge(c *Config, text string) error {
	days, whole := strings.CutSuffix(text, "d")
	if n, err := strconv.ParseUint(days, 10, 16); whole && err == nil && n > 0 {
		c.Retention.Age = time.Duration(n) * 24 * time.Hour
		return nil
	}
	age, err := time.ParseDuration(text)
	if err != nil || age <= 0 {
		return fmt.Errorf("%q is not an age like 30d or 12h", text)
	}
	c.Retention.Age = age
	return nil
}

func setRuns(c *Config, text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a number of runs from 1 up", text)
	}
	c.Retention.Runs = int(n)
	return nil
}

func setSize(c *Config, text string) error {
	size, err := pipelines.ParseSize(text)
	if err != nil || size <= 0 {
		return fmt.Errorf("%q is not a size like 20GiB", text)
	}
	c.Retention.Size = int64(size)
	return nil
}

func setPort(c *Config, text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fmt.Errorf("%q is not a port between 0 and 65535", text)
	}
	c.UIPort = int(n)
	return nil
}
