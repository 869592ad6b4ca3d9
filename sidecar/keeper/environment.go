package keeper

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundplan/groundplan/sidecar/control"
)

// surroundings is what the instances of one group share in one stage.
type surroundings struct {
	run      control.Placement
	group    *control.Group
	stage    control.RunStage
	started  time.Time
	subnet   netip.Prefix
	gateway  netip.Addr
	port     int
	all, own int // instances that take part, in the stage and of the group
}

// instance is what an instance has for itself.
type instance struct {
	index         int
	host          string
	control, data netip.Addr
	outputs, temp string
	starts        int // this one counted in
}

// environment is the whole environment of an instance, sorted: the contract's variables, then the run's, then the
// group's own laid over them. Nothing of the sidecar's own gets in.
func environment(s surroundings, i instance) ([]string, error) {
	params := maps.Clone(s.group.Parameters)
	if params == nil {
		params = make(map[string]string)
	}
	maps.Copy(params, s.stage.Params)
	lossless, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("encoding its parameters: %w", err)
	}
	env := map[string]string{
		"HOME": i.temp, "TMPDIR": i.temp, "HOSTNAME": i.host, "LOG_LEVEL": "info",

		"TEST_PLAN": s.run.Pipeline, "TEST_CASE": s.stage.Case, "TEST_RUN": s.run.Run,
		"TEST_REPO": "", "TEST_BRANCH": "", "TEST_TAG": "",
		"TEST_GROUP_ID": s.group.Name, "TEST_INSTANCE_ROLE": s.group.Role,
		"TEST_GROUP_INSTANCE_COUNT": strconv.Itoa(s.own), "TEST_INSTANCE_COUNT": strconv.Itoa(s.all),
		"TEST_INSTANCE_PARAMS": pack(params), "TEST_CAPTURE_PROFILES": pack(s.group.Profiles),
		"TEST_SIDECAR": "true", "TEST_SUBNET": s.subnet.String(), "TEST_DISABLE_METRICS": "true",
		"TEST_START_TIME":   s.started.UTC().Format(time.RFC3339),
		"TEST_OUTPUTS_PATH": i.outputs, "TEST_TEMP_PATH": i.temp,
		"SYNC_SERVICE_HOST": s.gateway.String(), "SYNC_SERVICE_PORT": strconv.Itoa(s.port),
		// Testground's SDK for Rust doesn't start without these two. The gateway drops what is written to it as to an
		// InfluxDB, and nobody connects to a Redis.
		"INFLUXDB_URL": "http://" + net.JoinHostPort(s.gateway.String(), strconv.Itoa(s.port)), "REDIS_HOST": "testground-redis",

		"GROUNDPLAN_RUN": s.run.Run, "GROUNDPLAN_STAGE": s.stage.Stage, "GROUNDPLAN_PARAMS": string(lossless),
		"GROUNDPLAN_INSTANCE": strconv.Itoa(i.index), "GROUNDPLAN_REGION": s.group.Region,
		"GROUNDPLAN_SEED":            strconv.FormatUint(seedOf(s.run.Seed, s.group.Name, i.index), 10),
		"GROUNDPLAN_CONTROL_ADDRESS": i.control.String(), "GROUNDPLAN_DATA_ADDRESS": i.data.String(),
	}
	if s.run.Node == nil { // in a pod the image's own stand
		env["PATH"], env["LANG"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "C.UTF-8"
	}
	for label, port := range s.group.Ports {
		env[strings.ToUpper(strings.TrimSpace(label))+"_PORT"] = strconv.Itoa(port)
	}
	if i.starts > 1 {
		env["GROUNDPLAN_STARTS"] = strconv.Itoa(i.starts)
	}
	maps.Copy(env, s.run.Env)
	maps.Copy(env, s.group.Env)
	lines := make([]string, 0, len(env))
	for name, value := range env {
		lines = append(lines, name+"="+value)
	}
	slices.Sort(lines)
	return lines, nil
}

// pack writes a map as `k=v|k2=v2`, in order. That form can't carry a name or value that holds one of its two signs:
// such an entry is left out, as its readers would drop it or read others wrongly; GROUNDPLAN_PARAMS carries all.
func pack(values map[string]string) string {
	var packed []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !strings.ContainsAny(name+values[name], "=|") {
			packed = append(packed, name+"="+values[name])
		}
	}
	return strings.Join(packed, "|")
}
