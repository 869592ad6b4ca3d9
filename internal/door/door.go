// Package door stands before a web page of this machine. It lets in who shows the page's key: once in the URL, from then
// on by a cookie.
package door

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net"
	"net/http"
	"path"
	"strings"
)

// Door lets in to one page.
type Door struct {
	// Key is what it asks for; see Key.
	Key string
	// Beyond says that the page is meant to be reached from other machines: under whatever name. Otherwise only requests
	// to a name of loopback are let in, since any other name may have been pointed here by a page that is up to something.
	Beyond bool
}

// Key is what the door of a page asks for, made from a secret that it doesn't give away: a browser shows the cookies of
// 127.0.0.1 to every port there.
func Key(page, secret string) string { return digest(page + "\x00" + secret) }

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// URL is the address that lets in whoever has it.
func (d Door) URL(address string) string { return "http://" + address + "/?key=" + d.Key }

// cookie is its name. Cookies know no ports: pages with other keys on the same machine need other names.
func (d Door) cookie() string { return "groundplan-" + digest("cookie\x00" + d.Key)[:8] }

// Guard hands on to next the requests of those who are let in.
func (d Door) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.Beyond && !loopback(r.Host) {
			refuse(w)
			return
		}
		if shown := r.URL.Query().Get("key"); d.same(shown) {
			d.enter(w, r)
			return
		}
		if cookie, err := r.Cookie(d.cookie()); err != nil || !d.same(cookie.Value) {
			refuse(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (d Door) same(shown string) bool {
	return d.Key != "" && subtle.ConstantTimeCompare([]byte(shown), []byte(d.Key)) == 1
}

// enter gives the cookie, and leads to the address without the key.
func (d Door) enter(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name: d.cookie(), Value: d.Key, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	})
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, path.Clean("/"+r.URL.Path), http.StatusSeeOther)
}

func refuse(w http.ResponseWriter) {
	http.Error(w, "open the address that `groundplan dev` printed: it holds the key that this page asks for", http.StatusForbidden)
}

// Drop takes the door's own key out of a request that is handed on to somebody else.
func (d Door) Drop(r *http.Request) {
	if strings.Contains(r.Referer(), d.Key) {
		r.Header.Del("Referer")
	}
	cookies := r.Cookies()
	r.Header.Del("Cookie")
	for _, c := range cookies {
		if c.Name != d.cookie() {
			r.AddCookie(c)
		}
	}
}

// loopback says whether a request was made to this machine by a name that nobody else can give away.
func loopback(host string) bool {
	name := host
	if split, _, err := net.SplitHostPort(host); err == nil {
		name = split
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}
