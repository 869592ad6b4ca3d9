package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"

	"github.com/groundplan/groundplan/internal/door"
)

// UIOptions say how Temporal's web page is served.
type UIOptions struct {
	// Temporal is the frontend's address, Namespace the one shown first.
	Temporal  string
	Namespace string
	// Token is what the frontend asks for.
	Token string
}

// UI is Temporal's web page. What is reached from outside is a door in front of it, which lets in who has the URL and
// adds the token that the frontend asks for.
type UI struct {
	page  *uiserver.Server
	front *http.Server
	url   string
	ended chan error
}

// StartUI serves the page and returns once it answers.
func StartUI(ctx context.Context, o UIOptions) (*UI, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	// The page's own Start ends the process when its port is taken, and it takes no listener: it gets a port that was
	// free a moment ago, and nobody but the door is told of it.
	behind, err := freeAddresses(1)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	page := uiserver.NewServer(server_options.WithConfigProvider(&uiconfig.Config{
		TemporalGRPCAddress: o.Temporal,
		Host:                "127.0.0.1",
		Port:                behind[0].Port,
		EnableUI:            true,
		DefaultNamespace:    o.Namespace,
		DisableNewsFetch:    true,
		HideLogs:            true,
		CORS:                uiconfig.CORS{CookieInsecure: true},
	}))
	u := &UI{
		page:  page,
		front: &http.Server{Handler: guarded(behind[0].String(), o.Token), ReadHeaderTimeout: 10 * time.Second},
		url:   uiDoor(o.Token).URL(listener.Addr().String()),
		ended: make(chan error, 1),
	}
	go func() { _ = page.Start() }()
	go func() { u.ended <- u.front.Serve(listener) }()
	if err := u.wait(ctx, behind[0].String()); err != nil {
		return nil, errors.Join(err, u.Stop())
	}
	return u, nil
}

func (u *UI) wait(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		var dialer net.Dialer
		connection, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return connection.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the web page does not answer: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// URL is where the page is; it lets in whoever has it.
func (u *UI) URL() string { return u.url }

// Stop ends the page.
func (u *UI) Stop() error {
	u.page.Stop()
	err := u.front.Close()
	if served := <-u.ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// uiDoor is the door of the page of a frontend that asks for token.
func uiDoor(token string) door.Door { return door.Door{Key: door.Key("web page", token)} }

// guarded is the page behind its door: who is let in gets the token added that the frontend asks for.
func guarded(behind, token string) http.Handler {
	d := uiDoor(token)
	return d.Guard(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: behind})
		r.Out.Host = r.In.Host
		r.Out.Header.Set("Authorization", "Bearer "+token)
		d.Drop(r.Out)
	}})
}
