package embedded

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
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
	// Token is what the frontend asks for.
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
		url:   fmt.Sprintf("http://%s/?key=%s", listener.Addr(), pageKey(o.Token)),
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

// pageKey is what the page asks for. It is not the token: a browser shows the cookies of 127.0.0.1 to every port there.
func pageKey(token string) string {
	sum := sha256.Sum256([]byte("web page\x00" + token))
	return hex.EncodeToString(sum[:16])
}

// door lets in who shows the key: once in the URL, from then on by a cookie.
func door(behind, token string) http.Handler {
	key := pageKey(token)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: behind})
		r.Out.Host = r.In.Host
		r.Out.Header.Set("Authorization", "Bearer "+token)
		dropCookie(r.Out)
	}}
	same := func(shown string) bool { return subtle.ConstantTimeCompare([]byte(shown), []byte(key)) == 1 }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if shown := r.URL.Query().Get("key"); local(r.Host) && same(shown) {
			http.SetCookie(w, &http.Cookie{Name: cookieName, Value: key, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
			http.Redirect(w, r, path.Clean("/"+r.URL.Path), http.StatusSeeOther)
			return
		}
		cookie, err := r.Cookie(cookieName)
		if err != nil || !local(r.Host) || !same(cookie.Value) {
			http.Error(w, "open the address that `groundplan dev` printed: it holds the key that this page asks for", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// local says whether a request was made to loopback by that name: any other name may have been pointed here by a page
// that is up to something.
func local(host string) bool {
	name, _, err := net.SplitHostPort(host)
	return err == nil && (name == "127.0.0.1" || name == "localhost")
}

// dropCookie takes the door's own cookie out of what is handed on.
func dropCookie(r *http.Request) {
	cookies := r.Cookies()
	r.Header.Del("Cookie")
	for _, c := range cookies {
		if c.Name != cookieName {
			r.AddCookie(c)
		}
	}
}
