// Package doctor looks at what a machine must have to carry runs out, by trying where that is cheap, and says what to do
// about what is missing.
package doctor

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/groundplan/groundplan/sidecar/network"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // some things won't work, or not as well
	Fail Level = "fail" // nothing works
)

// Finding is what one check came to.
type Finding struct {
	Name  string `json:"name"`
	Level Level  `json:"level"`
	// Text says what was found, Fix what to do; Fix is empty when there is nothing to do.
	Text string `json:"text"`
	Fix  string `json:"fix,omitempty"`
}

// Subject is the machine and configuration that are looked at; what is empty is not configured.
type Subject struct {
	Home     string
	Temporal string
	Redis    string
	// Elasticsearch asks the server that logs are pushed to whether it lets groundplan in.
	Elasticsearch func(ctx context.Context) error
	// Services says what is up of the embedded services; nil when Temporal is external.
	Services func(ctx context.Context) (string, error)
	// Cluster looks at the cluster that instances are to live on; nil: they are to live here.
	Cluster func(ctx context.Context) (string, error)
	// Supported tries to start a sidecar's namespaces.
	Supported func() error
	// Network tries to shape a network; nil: that is not looked at.
	Network func(ctx context.Context) (network.Trial, error)
}

// Examine makes every check, in the order in which a person should read them.
func Examine(ctx context.Context, s Subject) []Finding {
	findings := []Finding{namespaces(s.Supported)}
	if findings[0].Level != Fail && s.Network != nil {
		findings = append(findings, shaping(ctx, s.Network)...)
	}
	findings = append(findings, toolchain(ctx), disk(s.Home), memory())
	findings = append(findings, limits()...)
	findings = append(findings, services(ctx, s)...)
	if s.Cluster != nil {
		findings = append(findings, cluster(ctx, s.Cluster))
	}
	return findings
}

// cluster looks at the cluster.
func cluster(ctx context.Context, look func(context.Context) (string, error)) Finding {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	text, err := look(ctx)
	if err != nil {
		return Finding{Name: "kubernetes", Level: Fail, Text: err.Error(), Fix: "see docs/cluster.md; runs on this machine (--on local) need none of it"}
	}
	return Finding{Name: "kubernetes", Level: OK, Text: text}
}

func namespaces(supported func() error) Finding {
	f := Finding{Name: "namespaces", Level: OK, Text: "a run's network and processes can be held apart"}
	if os.Geteuid() != 0 {
		f.Text += ", without root"
	}
	if err := supported(); err != nil {
		f.Level, f.Text = Fail, err.Error()
		f.Fix = "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces > 0, kernel.apparmor_restrict_unprivileged_userns=0), or run as root"
	}
	return f
}

// shaping looks at what networks are shaped with. It takes for granted that there are namespaces.
func shaping(ctx context.Context, try func(context.Context) (network.Trial, error)) []Finding {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	const none = "runs work here as long as they ask nothing of their network"
	trial, err := try(ctx)
	if err != nil {
		return []Finding{{Name: "network", Level: Fail, Text: err.Error(), Fix: "see the namespaces above"}}
	}
	kernel := Finding{Name: "netem", Level: OK, Text: "latency, loss and bandwidth by the kernel"}
	user := Finding{Name: "user-space shaping", Level: OK, Text: fmt.Sprintf("policies by nftables; a link of %v was found to have %v",
		trial.Asked, trial.Achieved.Round(10*time.Microsecond))}
	if trial.Netem != "" {
		kernel.Level, kernel.Text = Warn, strings.TrimPrefix(trial.Netem, "trying netem: ")+": networks are shaped in user space, which costs CPU"
		kernel.Fix = "load the module (modprobe sch_netem), or install the kernel's extra modules"
	}
	if trial.UserSpace != "" {
		user.Level, user.Text = Warn, trial.UserSpace+": networks can't be shaped, nor have policies; "+none
		user.Fix = "load the module (modprobe nf_tables); in a container, allow packet sockets (CAP_NET_RAW)"
	}
	return []Finding{kernel, user}
}

func toolchain(ctx context.Context) Finding {
	f := Finding{Name: "go", Level: OK}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		f.Level, f.Text = Warn, fmt.Sprintf("no Go toolchain (%v): artifacts can't be built from `go` sources", err)
		f.Fix = "install Go from https://go.dev/dl and put its bin folder into PATH"
		return f
	}
	f.Text = strings.TrimSpace(string(out)) + " builds artifacts"
	return f
}

func services(ctx context.Context, s Subject) []Finding {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var out []Finding
	add := func(name, what string, err error, fix string) {
		f := Finding{Name: name, Level: OK, Text: what}
		if err != nil {
			f.Level, f.Text, f.Fix = Fail, err.Error(), fix
		}
		out = append(out, f)
	}
	if s.Temporal != "" {
		add("temporal", "reached at "+s.Temporal, dial(ctx, s.Temporal), "start it, or take --temporal away for the embedded one")
	} else if s.Services != nil {
		text, err := s.Services(ctx)
		add("temporal", text, err, "see the services' log in the home")
	}
	if s.Redis != "" {
		add("redis", "reached", ping(ctx, s.Redis), "start it, or take --redis away for the embedded one")
	} else {
		add("redis", "embedded in each run's sidecar", nil, "")
	}
	if s.Elasticsearch != nil {
		add("elasticsearch", "reached", s.Elasticsearch(ctx), "start it, mend the account, or take --elasticsearch away: runs then keep their outputs here only")
	}
	return out
}

func dial(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func ping(ctx context.Context, address string) error {
	options, err := redis.ParseURL(address)
	if err != nil {
		return fmt.Errorf("the URL of Redis can't be read") // it may hold a password
	}
	options.MaxRetries = -1
	client := redis.NewClient(options)
	defer client.Close()
	return client.Ping(ctx).Err()
}
