package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Environment is what an instance was started with.
type Environment struct {
	ID    string // of the run
	Plan  string // the pipeline's name
	Stage string // empty under Testground
	Case  string
	Group string
	// Index is the instance's place in its group, from 0; -1 under Testground, which doesn't say.
	Index int
	// Instances and GroupInstances count those that take part, in all and in this one's group.
	Instances      int
	GroupInstances int
	Region         string
	Role           string
	// Seed is the instance's own, and the same in every run with the same seed of the pipeline.
	Seed uint64
	// Host is unique per instance.
	Host string
	// Subnet is the data network; not valid where there is none.
	Subnet netip.Prefix
	// Shaped is whether the network can be configured (Run.ConfigureNetwork).
	Shaped bool
	// Outputs is the folder whose files are collected, Temp one that is removed at the end; both are there.
	Outputs string
	Temp    string
	Start   time.Time // of the stage; zero when it isn't known
	// Params are the parameters as text; Param reads them as what they are.
	Params map[string]string

	wanted map[string]string // profiles: kind → period

	data netip.Addr // as it was at the start
	sync string     // host:port of the sync service
}

// readEnvironment reads the variables that lookup finds; every fault is in the error.
func readEnvironment(lookup func(string) (string, bool)) (Environment, error) {
	r := reader{lookup: lookup}
	e := Environment{
		ID: r.text("RUN", "TEST_RUN"), Plan: r.text("PLAN", "TEST_PLAN"), Stage: r.text("STAGE"),
		Case: r.text("CASE", "TEST_CASE"), Group: r.text("GROUP", "TEST_GROUP_ID"),
		Index:     r.count("INSTANCE", -1),
		Instances: r.count("INSTANCES", 1, "TEST_INSTANCE_COUNT"), GroupInstances: r.count("GROUP_INSTANCES", 1, "TEST_GROUP_INSTANCE_COUNT"),
		Region: r.text("REGION"), Role: r.text("ROLE", "TEST_INSTANCE_ROLE"),
		Outputs: r.text("OUTPUTS", "TEST_OUTPUTS_PATH"), Temp: r.text("TEMP", "TEST_TEMP_PATH"),
		Host: r.text("HOST", "HOSTNAME"),
	}
	if seed := r.text("SEED"); seed != "" {
		var err error
		e.Seed, err = strconv.ParseUint(seed, 10, 64)
		r.fault("GROUNDPLAN_SEED", seed, "a number", err)
	}
	if subnet := r.text("SUBNET", "TEST_SUBNET"); subnet != "" {
		var err error
		e.Subnet, err = netip.ParsePrefix(subnet)
		r.fault("TEST_SUBNET", subnet, "a network like 10.0.0.0/16", err)
	}
	if address := r.text("DATA_ADDRESS"); address != "" {
		var err error
		e.data, err = netip.ParseAddr(address)
		r.fault("GROUNDPLAN_DATA_ADDRESS", address, "an IP address", err)
	}
	// A wrong time is no reason to fail: nothing depends on it, and some runners write it in a form of their own.
	e.Start, _ = time.Parse(time.RFC3339, r.text("START_TIME", "TEST_START_TIME"))
	e.Shaped, _ = strconv.ParseBool(r.text("SIDECAR", "TEST_SIDECAR"))
	e.sync = syncAddress(r.text("SYNC"), r.text("", "SYNC_SERVICE_HOST"), r.text("", "SYNC_SERVICE_PORT"))
	e.Params = r.params()
	e.wanted = unpack(r.text("PROFILES", "TEST_CAPTURE_PROFILES"))
	if e.Host == "" {
		e.Host, _ = os.Hostname() // an empty one is only missed where the network is configured
	}
	for _, folder := range []*string{&e.Outputs, &e.Temp} {
		if *folder == "" {
			*folder = os.TempDir()
		}
	}
	if e.Case == "" {
		r.faults = append(r.faults, errors.New("TEST_CASE is not set: it says which case to run"))
	}
	return e, errors.Join(r.faults...)
}

func syncAddress(address, host, port string) string {
	if address != "" {
		return address
	}
	if host == "" {
		host = "testground-sync-service"
	}
	if port == "" {
		port = "5050"
	}
	return host + ":" + port
}

// reader reads variables and gathers faults.
type reader struct {
	lookup func(string) (string, bool)
	faults []error
}

// text is the value of GROUNDPLAN_<name>, or of the first of the others that is set.
func (r *reader) text(name string, others ...string) string {
	if name != "" {
		others = append([]string{"GROUNDPLAN_" + name}, others...)
	}
	for _, variable := range others {
		if value, set := r.lookup(variable); set && value != "" {
			return value
		}
	}
	return ""
}

// count is a number that isn't negative, or fallback when there is none.
func (r *reader) count(name string, fallback int, others ...string) int {
	text := r.text(name, others...)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err == nil && n < 0 {
		err = errors.New("it is negative")
	}
	r.fault(append(others, "GROUNDPLAN_"+name)[0], text, "a number from 0 on", err)
	return n
}

func (r *reader) fault(variable, value, want string, err error) {
	if err != nil {
		r.faults = append(r.faults, fmt.Errorf("%s is %q; it should be %s (%w)", variable, value, want, err))
	}
}

// params reads the lossless form, or else Testground's.
func (r *reader) params() map[string]string {
	text := r.text("PARAMS")
	if text == "" {
		return unpack(r.text("", "TEST_INSTANCE_PARAMS"))
	}
	params := map[string]string{}
	err := json.Unmarshal([]byte(text), &params)
	r.fault("GROUNDPLAN_PARAMS", text, "a JSON object of strings", err)
	return params
}

// unpack reads `k=v|k2=v2`.
func unpack(packed string) map[string]string {
	values := map[string]string{}
	for _, entry := range strings.Split(packed, "|") {
		if name, value, ok := strings.Cut(entry, "="); ok {
			values[name] = value
		}
	}
	return values
}
