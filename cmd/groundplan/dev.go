package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/internal/door"
	"github.com/groundplan/groundplan/page"
	"github.com/groundplan/groundplan/worker"
)

type devOptions struct {
	uiPort    string
	listen    string
	untilIdle bool
	form      *string
}

// idleFor is how long nothing may run before `dev --until-idle` ends.
const idleFor = 15 * time.Second

func (a *app) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use: "dev", Short: "Keep the embedded services and the web page up",
		Long: "Keep the embedded services, a worker and the web page up until Ctrl-C. Every other command with the same home\n" +
			"uses them, and starts faster for it. The page shows runs and suites as they go, and Temporal's own page is behind it.\n" +
			"\n" +
			"The address that is printed lets in whoever has it. The page is reached from this machine only, unless --listen says\n" +
			"otherwise: it speaks plain HTTP then too, so put something in front of it that speaks TLS and passes Host on.",
		Args: args(cobra.NoArgs),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.dev(cmd.Context(), o) }
	o.form = output(cmd, "text", "json")
	cmd.Flags().StringVar(&o.uiPort, "ui-port", "", "port of the web page on this machine (default: a free one)")
	cmd.Flags().StringVar(&o.listen, "listen", "", "address of the web page, host:port, to reach it from other machines too")
	cmd.Flags().BoolVar(&o.untilIdle, "until-idle", false, "end when no run has been under way for a while")
	exclusive(cmd, "ui-port", "listen")
	return cmd
}

func (a *app) dev(ctx context.Context, o devOptions) error {
	if o.uiPort != "" {
		a.set["ui-port"] = o.uiPort
	}
	config, err := a.config()
	if err != nil {
		return err
	}
	if config.Temporal != "" {
		return usage(fmt.Errorf("`groundplan dev` keeps embedded services up, and Temporal is external (%s): run `groundplan worker`, or take that setting away", config.Temporal))
	}
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(config.UIPort))
	if o.listen != "" {
		if _, _, err := net.SplitHostPort(o.listen); err != nil {
			return usage(fmt.Errorf("--listen %s: it must be host:port, such as 0.0.0.0:8080", o.listen))
		}
		at = o.listen
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", at)
	if err != nil {
		return fmt.Errorf("opening the web page's port: %w", err)
	}
	err = worker.Dev(ctx, config, func(ctx context.Context, session *worker.Session) error {
		if o.untilIdle {
			go stopWhenIdle(ctx, config, stop)
		}
		return a.servePage(ctx, session, config, listener, *o.form)
	})
	if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) { // the services could not be started
		a.tell("closing the web page's port: %v", err)
	}
	if err != nil {
		return fmt.Errorf("keeping the services up: %w", err)
	}
	a.tell("The services are down.")
	return nil
}

// servePage says where everything is, and serves the page until the context ends.
func (a *app) servePage(ctx context.Context, session *worker.Session, config worker.Config, listener net.Listener, form string) error {
	way := door.Door{Key: session.PageKey(), Beyond: !onLoopback(listener)}
	p, err := page.New(page.Options{Home: session.Home(), Services: pageServices{session}, Door: way, Log: config.Log})
	if err != nil {
		return fmt.Errorf("making the web page: %w", err)
	}
	a.up(session.Info(), way.URL(reachable(listener)), form)
	if way.Beyond {
		a.tell("The page is open to other machines, in plain HTTP: its key can be read on the way unless something in front of it speaks TLS.")
	}
	return p.Serve(ctx, listener)
}

func onLoopback(listener net.Listener) bool {
	tcp, ok := listener.Addr().(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// reachable is a listener's address as others can use it: one that means every address becomes this machine's name.
func reachable(listener net.Listener) string {
	tcp, ok := listener.Addr().(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return listener.Addr().String()
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}

// devInfo is what `dev --output json` says.
type devInfo struct {
	worker.Info
	// UI is the URL of the web page. It lets in whoever has it.
	UI string `json:"ui"`
}

// up says where everything is.
func (a *app) up(info worker.Info, ui, form string) {
	if form == "json" {
		_ = a.json(devInfo{info, ui})
		return
	}
	a.tell("%s The services are up. Ctrl-C stops them; runs under way can be resumed.", a.say.Paint(terminal.Green, "●"))
	for _, row := range []struct{ name, value string }{
		{"web page", ui}, {"Temporal", info.Temporal}, {"namespace", info.Namespace}, {"home", info.Home},
	} {
		if row.value != "" {
			a.tell("  %s%s", a.say.Paint(terminal.Dim, terminal.Pad(row.name, 11)), row.value)
		}
	}
}

// stopWhenIdle calls stop once no run has been under way for idleFor. A run that holds is under way.
func stopWhenIdle(ctx context.Context, config worker.Config, stop func()) {
	session, err := worker.Find(ctx, config)
	if err != nil {
		stop()
		return
	}
	defer session.Close()
	busy := time.Now()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for time.Since(busy) < idleFor {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if underWay(ctx, session) {
			busy = time.Now()
		}
	}
	stop()
}

// underWay says whether any run is; when that can't be told there may be one.
func underWay(ctx context.Context, session *worker.Session) bool {
	for _, status := range []string{stage.StatusRunning, stage.StatusHolding} {
		rows, err := session.List(ctx, worker.Filter{Status: status, Cells: true, Limit: 1})
		if err != nil || len(rows) > 0 {
			return true
		}
	}
	return false
}
