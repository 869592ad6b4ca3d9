package embedded

import (
	"context"
	"crypto/subtle"
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
)

// UIOptions say how Temporal's web page is served.
type UIOptions struct {
	// Temporal is the frontend's address, Namespace the one shown first.
	Temporal  string
	Namespace string
	// Token is what the frontend asks for; the page's URL holds it.
	Token string
	// Port is where it is served on loopback; 0: any free one.
	Port int
}

// UI is Temporal's web page. What is reached from outside is a door in front of it, which lets in who has the URL and
// adds the token that the frontend asks for.
type UI struct {
	page  *uiserver.Server
	door  *http.Server
	url   string
	ended chan error
}

// StartUI serves the page and returns once it answers.
func StartUI(ctx context.Context, o UIOptions) (*UI, error) {
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", o.Port))
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
		door:  &http.Server{Handler: door(behind[0].String(), o.Token), ReadHeaderTimeout: 10 * time.Second},
		url:   fmt.Sprintf("http://%s/?token=%s", listener.Addr(), o.Token),
		ended: make(chan error, 1),
	}
	go func() { _ = page.Start() }()
	go func() { u.ended <- u.door.Serve(listener) }()
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
	err := u.door.Close()
	if served := <-u.ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

const cookieName = "groundplan"

// door lets in who shows the token: once in the URL, from then on by a cookie.
func door(behind, token string) http.Handler {
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: behind})
		r.Out.Host = r.In.Host
		r.Out.Header.Set("Authorization", "Bearer "+token)
	}}
	same := func(shown string) bool { return subtle.ConstantTimeCompare([]byte(shown), []byte(token)) == 1 }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if shown := r.URL.Query().Get("token"); shown != "" && same(shown) {
			http.SetCookie(w, &http.Cookie{Name: cookieName, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
			http.Redirect(w, r, r.URL.Path, http.StatusSeeOther)
			return
		}
		if cookie, err := r.Cookie(cookieName); err != nil || !same(cookie.Value) {
			http.Error(w, "open the address that `groundplan dev` printed: it holds the token that this page asks for", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}
