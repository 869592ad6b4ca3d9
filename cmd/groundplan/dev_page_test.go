package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/internal/browser"
	"github.com/groundplan/groundplan/sidecar/launch"
)

// liveDev is a `groundplan dev` of a test's own, and its page.
type liveDev struct {
	t             *testing.T
	program, home string
	ui            string
	process       *exec.Cmd
}

func startDev(t *testing.T) *liveDev {
	t.Helper()
	d := &liveDev{t: t, program: filepath.Join(t.TempDir(), "groundplan"), home: filepath.Join(t.TempDir(), "home")}
	if out, err := exec.Command("go", "build", "-o", d.program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building groundplan: %v\n%s", err, out)
	}
	d.process = exec.Command(d.program, "dev", "--home", d.home, "--output", "json")
	var said bytes.Buffer
	d.process.Stderr = &said
	answer, err := d.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.process.Process.Signal(syscall.SIGTERM)
		if err := d.process.Wait(); err != nil {
			t.Errorf("dev ended with %v\n%s", err, said.String())
		}
	})
	var info devInfo
	if err := json.NewDecoder(answer).Decode(&info); err != nil || info.UI == "" || info.TemporalUI == "" {
		t.Fatalf("dev is not ready: %+v %v\n%s", info, err, said.String())
	}
	d.ui = info.UI
	return d
}

// slow is a pipeline whose instances say something hostile and go on for a minute.
func slow(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string]string{
		"slow.yaml": `pipeline: slow
description: <img src=x onerror=alert(1)>
groups:
  a: {artifact: prog, instances: 2, outcome: exit}
stages:
  - {name: build, build: {prog: {executable: {path: prog.sh}}}}
  - {name: place, schedule: {}}
  - {name: sleep, run: {case: sleep}}
`,
		"prog.sh": "#!/bin/sh\necho '<script>alert(1)</script>'\nexec sleep 60\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, ".git"), 0o755); err != nil { // the root of what it reads
		t.Fatal(err)
	}
	return filepath.Join(folder, "slow.yaml")
}

// run starts a pipeline and lets go of it.
func (d *liveDev) run(file, id string) {
	d.t.Helper()
	cmd := exec.Command(d.program, "run", file, "--home", d.home, "--run-id", id, "--detach")
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("starting %s: %v\n%s", file, err, out)
	}
}

// at is the address of a document of the page, with its key.
func (d *liveDev) at(path string) string { return strings.Replace(d.ui, "/?", path+"?", 1) }

// TestChromiumFollowsRealRuns has the live page of a real `groundplan dev` show runs as they go, and end one.
func TestChromiumFollowsRealRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the whole program and starts services")
	}
	if err := launch.Supported(); err != nil {
		t.Skip(err)
	}
	b := browser.Start(t)
	d := startDev(t)
	response, err := http.Get(strings.Split(d.ui, "?")[0])
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("without its key the page is %s", response.Status)
	}
	list := b.Open(t, d.ui, browser.Desktop)
	list.Until(`!document.querySelector("#empty").hidden`)
	one := b.Open(t, d.at("/runs/slow-1"), browser.Phone)
	one.Until(`!!document.querySelector("#verdict .dim") && document.querySelector("#verdict").textContent.startsWith("gone")`)

	d.run(slow(t), "slow-1")
	list.Until(`document.querySelector(".run a")?.textContent === "slow-1" && !!document.querySelector(".run .running")`)
	one.Until(`[...document.querySelectorAll(".stage")].some((s) => s.textContent.includes("running") && s.querySelector("progress") && /[0-9] running/.test(s.textContent))`)
	one.Until(`document.querySelectorAll("#events > div").length > 5`)
	browser.Evaluate[any](one, `(document.querySelector("#jumpto").value = "a/1", document.querySelector("#jump").requestSubmit())`)
	one.Until(`document.querySelector("#log").textContent.includes("<script>")`)
	browser.Evaluate[any](one, `[...document.querySelectorAll("#actions button")].find((b) => b.textContent === "Cancel").click()`)
	one.Until(`document.querySelector("#confirm").open`)
	browser.Evaluate[any](one, `document.querySelector("#yes").click()`)
	one.Until(`!!document.querySelector("#verdict .cancelled")`)
	list.Until(`!!document.querySelector(".run .cancelled")`)

	d.run(filepath.Join("..", "..", "plans", "ping-pong", "pipeline.yaml"), "pong-1")
	list.Until(`document.querySelector(".run a")?.textContent === "pong-1" && !!document.querySelector(".run .passed")`)
	passed := b.Open(t, d.at("/runs/pong-1"), browser.Desktop)
	passed.Until(`!!document.querySelector("#verdict .passed") && !document.querySelector("#measured").hidden && document.querySelector("#tally").textContent.includes("2 succeeded")`)
	browser.Evaluate[any](passed, `document.querySelector("#grid").focus()`)
	browser.Evaluate[any](passed, `document.querySelector("#grid").dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}))`)
	passed.Until(`document.querySelector("#log").textContent.includes("success")`)
	report := b.Open(t, d.at("/runs/pong-1/report.html"), browser.Desktop)
	report.Until(`document.body.textContent.includes("ping-pong")`)
	for name, p := range map[string]*browser.Page{"list": list, "run": one, "passed": passed, "report": report} {
		if troubles := p.Troubles(); len(troubles) > 0 {
			t.Errorf("%s: %q", name, troubles)
		}
	}
	began := time.Now()
	_ = d.process.Process.Signal(syscall.SIGTERM) // with streams open
	list.Until(`document.querySelector("#link").classList.contains("away")`)
	t.Logf("the page noticed the end of dev after %v", time.Since(began).Round(time.Millisecond))
}

func TestDevAddresses(t *testing.T) {
	for _, args := range [][]string{{"dev", "--listen", "8080"}, {"dev", "--listen", "127.0.0.1:0", "--ui-port", "1"}} {
		var said bytes.Buffer
		a := newApp(&said, &said, func(name string) string { return map[string]string{"GROUNDPLAN_HOME": t.TempDir()}[name] })
		if status := a.main(t.Context(), args); status != exitUsage || !strings.Contains(said.String(), "listen") {
			t.Errorf("%v: status %d, %s", args, status, said.String())
		}
	}
	for address, beyond := range map[string]bool{"127.0.0.1:1": false, "[::1]:1": false, "0.0.0.0:1": true, "[::]:1": true, "192.0.2.1:1": true} {
		tcp, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		listener := listensAt{addr: tcp}
		host, _, err := net.SplitHostPort(reachable(listener))
		if onLoopback(listener) == beyond || err != nil || host == "0.0.0.0" || host == "::" || host == "" {
			t.Errorf("%s is reached as %s (%v), on loopback: %v", address, reachable(listener), err, onLoopback(listener))
		}
	}
}

// listensAt only says where it listens.
type listensAt struct {
	net.Listener
	addr net.Addr
}

func (l listensAt) Addr() net.Addr { return l.addr }
