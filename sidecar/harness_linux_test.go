package sidecar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/launch"
)

// This program plays four roles: the tests, an unprivileged user who starts a sidecar, the sidecar, and an instance.
const (
	roleVariable = "GROUNDPLAN_SIDECAR_TEST"
	roleStarter  = "starter"
	roleSidecar  = "sidecar"
	roleInstance = "instance"
	nobody       = 65534
	// Under the race detector every program would sleep for a second before it ends.
	raceName, raceValue = "GORACE", "atexit_sleep_ms=0"
	raceExit            = raceName + "=" + raceValue
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVariable) {
	case roleStarter:
		err = startSidecar(os.Args[1:])
	case roleSidecar:
		err = beSidecar(os.Args[1:])
	case roleInstance:
		err = play()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func beSidecar(args []string) error {
	idle, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	return Main(context.Background(), Config{
		Folder: runs.Folder(args[0]), Redis: args[1], IdleLimit: idle,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

func startSidecar(args []string) error {
	p, err := launchSidecar(args)
	if err != nil {
		return err
	}
	_, err = p.Wait()
	return err
}

func launchSidecar(args []string) (*os.Process, error) {
	log, err := os.OpenFile(runs.Folder(args[0]).SidecarLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := []string{roleVariable + "=" + roleSidecar, raceExit, "TMPDIR=" + os.TempDir(), "SIDECARS_OWN=secret"}
	return launch.Start(launch.Options{Executable: self, Args: args, Env: env, Log: log})
}

// run is a run with a sidecar in a process of its own.
type run struct {
	*control.Client
	t      *testing.T
	folder runs.Folder
	ended  chan error
	pid    int
}

type options struct {
	redis  string
	idle   time.Duration
	nobody bool
}

func start(t *testing.T, o options) *run {
	t.Helper()
	if err := launch.Supported(); err != nil {
		t.Skip(err)
	}
	if o.idle == 0 {
		o.idle = time.Hour
	}
	home, err := os.MkdirTemp("", "sidecar-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	r := &run{t: t, folder: runs.Home(home).Run("run-1"), ended: make(chan error, 1)}
	if err := os.MkdirAll(string(r.folder), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{string(r.folder), o.redis, o.idle.String()}
	if o.nobody {
		r.startAsNobody(home, args)
	} else {
		p, err := launchSidecar(args)
		if err != nil {
			t.Fatal(err)
		}
		r.pid = p.Pid
		go func() {
			state, err := p.Wait()
			if err == nil && !state.Success() {
				err = fmt.Errorf("%v", state)
			}
			r.ended <- err
		}()
	}
	r.Client = control.Dial(control.Socket(r.folder))
	r.awaitAnswer()
	t.Cleanup(func() {
		if _, err := r.Release(context.Background()); err != nil {
			t.Error(err)
		}
		r.Close()
		if t.Failed() {
			log, _ := os.ReadFile(r.folder.SidecarLog())
			t.Logf("the sidecar's log:\n%s", log)
		}
	})
	return r
}

// startAsNobody has an unprivileged user start the sidecar.
func (r *run) startAsNobody(home string, args []string) {
	r.t.Helper()
	if os.Geteuid() != 0 {
		r.t.Skip("becoming another user takes root")
	}
	self := filepath.Join(home, "program") // the test's own folder may be closed to others
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(self, program, 0o755); err != nil {
		r.t.Fatal(err)
	}
	for _, dir := range []string{home, filepath.Dir(string(r.folder)), string(r.folder)} {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			r.t.Fatal(err)
		}
	}
	cmd := exec.Command(self, args...)
	cmd.Env = []string{roleVariable + "=" + roleStarter, raceExit, "TMPDIR=" + os.TempDir()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		err := cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, said.String())
		}
		r.ended <- err
	}()
}

func (r *run) awaitAnswer() {
	r.t.Helper()
	for {
		status, err := r.Status(r.t.Context())
		if err == nil {
			r.pid = status.PID
			return
		}
		if !errors.Is(err, control.ErrAway) {
			r.t.Fatal(err)
		}
		select {
		case err := <-r.ended:
			log, _ := os.ReadFile(r.folder.SidecarLog())
			r.t.Fatalf("the sidecar ended before it answered: %v\n%s", err, log)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// group has instances of this program, which do what the stage's case says.
func (r *run) group(name string, instances int) control.Group {
	program := os.Args[0]
	if copied := filepath.Join(filepath.Dir(filepath.Dir(string(r.folder))), "program"); exists(copied) {
		program = copied
	}
	return control.Group{
		Group: pipelines.Group{
			Name: name, Instances: instances, Outcome: pipelines.OutcomeReport,
			Env: map[string]string{roleVariable: roleInstance, raceName: raceValue},
		},
		Program: program,
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func (r *run) place(groups ...control.Group) control.Status {
	r.t.Helper()
	ask := control.Placement{Run: "run-1", Pipeline: "plan", Seed: 7, All: groups}
	for _, g := range groups {
		ask.Groups = append(ask.Groups, g.Name)
	}
	status, err := r.Place(r.t.Context(), ask)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(status.Faults) > 0 {
		r.t.Fatalf("faults: %v", status.Faults)
	}
	return status
}

func (r *run) stage(key string, ask control.RunStage) control.RunStatus {
	r.t.Helper()
	ask.Stage = "stage"
	status, err := r.Open(r.t.Context(), key, ask)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.until(status, func(s control.RunStatus) bool { return s.Done })
}

func (r *run) until(status control.RunStatus, there func(control.RunStatus) bool) control.RunStatus {
	r.t.Helper()
	for !there(status) {
		if status.Done {
			r.t.Fatalf("ended: %+v", status)
		}
		var err error
		if status, err = r.Wait(r.t.Context(), status.Key, status.Version, time.Minute); err != nil {
			r.t.Fatal(err)
		}
	}
	return status
}

func (r *run) output(group string, index int, name string) string {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.folder.Outputs(group, index), name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

func (r *run) results() map[string]control.Instance {
	r.t.Helper()
	data, err := os.ReadFile(r.folder.Stage("stage"))
	if err != nil {
		r.t.Fatal(err)
	}
	found := map[string]control.Instance{}
	for line := range strings.Lines(string(data)) {
		var i control.Instance
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			r.t.Fatal(err)
		}
		found[fmt.Sprintf("%s/%d", i.Group, i.Index)] = i
	}
	return found
}

// play is what an instance does: it speaks the protocol without any SDK.
func play() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := &player{ctx: ctx, prefix: fmt.Sprintf("run:%s:plan:%s:case:%s:", os.Getenv("TEST_RUN"), os.Getenv("TEST_PLAN"), os.Getenv("TEST_CASE"))}
	var err error
	p.conn, _, err = websocket.Dial(ctx, "ws://testground-sync-service:5050/", nil)
	if err != nil {
		return err
	}
	defer p.conn.CloseNow()
	if err := p.ask(`"barrier":{"state":%q,"target":%s}`, p.prefix+"states:network-initialized", os.Getenv("TEST_INSTANCE_COUNT")); err != nil {
		return err
	}
	switch os.Getenv("TEST_CASE") {
	case "together":
		err = p.together()
	case "leave-network":
		err = p.configure(`{"network":"default","enable":false,"callback_state":"done"}`)
	case "move":
		err = p.move()
	case "shape":
		err = p.configure(`{"network":"default","enable":true,"default":{"latency":60000000},"callback_state":"done"}`)
		err = errors.Join(err, p.neighbour(120*time.Millisecond, time.Minute))
	case "unshaped":
		err = p.neighbour(0, 100*time.Millisecond)
	case "elsewhere":
		err = p.configure(`{"network":"default","enable":true,"IPv4":"11.0.0.7/16","callback_state":"done"}`)
	case "lingers":
		err = p.event(`{"success_event":{"group":"g"}}`)
		time.Sleep(time.Minute)
	case "environment":
		for _, entry := range os.Environ() {
			fmt.Println(entry)
		}
		interfaces, _ := net.Interfaces()
		for _, i := range interfaces {
			addresses, _ := i.Addrs()
			fmt.Println(i.Name, addresses)
		}
		host, _ := os.Hostname()
		fmt.Println("os.Hostname", host)
		wd, _ := os.Getwd()
		fmt.Println("os.Getwd", wd)
	case "sleep":
		time.Sleep(time.Minute)
	}
	if err != nil {
		return err
	}
	fmt.Println(`{"ts":1,"event":{"success_event":{"group":"g"}}}`)
	return p.event(`{"success_event":{"group":"g"}}`)
}

// player is an instance at the sync service.
type player struct {
	ctx    context.Context
	conn   *websocket.Conn
	prefix string
	next   int
}

// ask makes one request and waits for its answer.
func (p *player) ask(format string, args ...any) error {
	request := fmt.Sprintf(`{"id":"%d",%s}`, p.next, fmt.Sprintf(format, args...))
	p.next++
	if err := p.conn.Write(p.ctx, websocket.MessageText, []byte(request)); err != nil {
		return err
	}
	_, answer, err := p.conn.Read(p.ctx)
	if err != nil {
		return err
	}
	var said struct{ Error string }
	if err := json.Unmarshal(answer, &said); err != nil || said.Error != "" {
		return fmt.Errorf("%s: %s %w", request, said.Error, err)
	}
	return nil
}

func (p *player) event(payload string) error {
	return p.ask(`"publish":{"topic":%q,"payload":%s}`, p.prefix+"run_events", payload)
}

func (p *player) together() error {
	if err := p.ask(`"signal_entry":{"state":%q}`, p.prefix+"states:here"); err != nil {
		return err
	}
	return p.ask(`"barrier":{"state":%q,"target":%s}`, p.prefix+"states:here", os.Getenv("TEST_INSTANCE_COUNT"))
}

// configure asks for a network, and waits until all instances' is so.
func (p *player) configure(config string) error {
	if err := p.ask(`"publish":{"topic":%q,"payload":%s}`, p.prefix+"topics:network:"+os.Getenv("HOSTNAME"), config); err != nil {
		return err
	}
	return p.ask(`"barrier":{"state":%q,"target":%s}`, p.prefix+"states:done", os.Getenv("TEST_INSTANCE_COUNT"))
}

// move takes the address 10.0.77.1n, n being the index of the instance.
func (p *player) move() error {
	index := os.Getenv("GROUNDPLAN_INSTANCE")
	if err := p.configure(fmt.Sprintf(`{"network":"default","enable":true,"IPv4":"10.0.77.1%s/8","callback_state":"done"}`, index)); err != nil {
		return err
	}
	data, err := net.InterfaceByName("eth1")
	if err != nil {
		return err
	}
	addresses, err := data.Addrs()
	fmt.Println("eth1 now", addresses)
	return err
}

// neighbour checks how long the way over the data network to instance 0 and back takes. Nobody listens there, and that
// is the answer.
func (p *player) neighbour(least, most time.Duration) error {
	if os.Getenv("GROUNDPLAN_INSTANCE") == "0" {
		return p.together()
	}
	began := time.Now()
	_, err := net.Dial("tcp", "10.0.0.2:9")
	took := time.Since(began)
	if !errors.Is(err, syscall.ECONNREFUSED) || took < least || took > most {
		return fmt.Errorf("after %v: %w", took, err)
	}
	return p.together()
}
