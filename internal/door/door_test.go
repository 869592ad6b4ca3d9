package door

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// guarded is what a door answers to one request; with says what the request brings.
func guarded(d Door, address string, with func(*http.Request)) *httptest.ResponseRecorder {
	behind := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.Drop(r)
		_, _ = io.WriteString(w, "page "+r.Header.Get("Cookie"))
	})
	r := httptest.NewRequest(http.MethodGet, address, nil)
	r.Host = "127.0.0.1:1"
	if with != nil {
		with(r)
	}
	w := httptest.NewRecorder()
	d.Guard(behind).ServeHTTP(w, r)
	return w
}

func TestDoor(t *testing.T) {
	d := Door{Key: Key("a page", "token")}
	if url := d.URL("127.0.0.1:1"); url != "http://127.0.0.1:1/?key="+d.Key || strings.Contains(url, "token") {
		t.Errorf("the URL is %s", url)
	}
	entered := guarded(d, "/runs/x?key="+d.Key, nil)
	cookies := entered.Result().Cookies()
	if entered.Code != http.StatusSeeOther || entered.Header().Get("Location") != "/runs/x" || len(cookies) != 1 {
		t.Fatalf("entering gives %d %v", entered.Code, entered.Header())
	}
	if c := cookies[0]; !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure {
		t.Errorf("the cookie is %v", c)
	}
	with := func(r *http.Request) {
		r.AddCookie(cookies[0])
		r.AddCookie(&http.Cookie{Name: "other", Value: "1"})
	}
	if w := guarded(d, "/", with); w.Body.String() != "page other=1" {
		t.Errorf("inside there is %d %q", w.Code, w.Body)
	}
	if w := guarded(d, "//evil.example/?key="+d.Key, nil); strings.HasPrefix(w.Header().Get("Location"), "//") {
		t.Errorf("the door leads to %s", w.Header().Get("Location"))
	}
	proxied := guarded(d, "/?key="+d.Key, func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") })
	if c := proxied.Result().Cookies(); len(c) != 1 || !c[0].Secure {
		t.Errorf("behind TLS the cookie is %v", c)
	}
	if (Door{Key: Key("another page", "token")}).cookie() == d.cookie() {
		t.Error("two pages on one machine would take each other's cookie away")
	}
}

func TestDoorRefuses(t *testing.T) {
	d := Door{Key: Key("a page", "token")}
	cookie := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: d.cookie(), Value: value}) }
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"nothing":      guarded(d, "/", nil),
		"another key":  guarded(d, "/?key=other", nil),
		"the secret":   guarded(d, "/?key=token", nil),
		"no key":       guarded(d, "/?key=", nil),
		"wrong cookie": guarded(d, "/", cookie("x")),
		"a closed door": guarded(Door{}, "/?key=", func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: Door{}.cookie(), Value: ""})
		}),
		"a name pointed here": guarded(d, "/?key="+d.Key, func(r *http.Request) { r.Host = "evil.example:80" }),
		"such a name inside":  guarded(d, "/", func(r *http.Request) { cookie(d.Key)(r); r.Host = "evil.example" }),
	} {
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "groundplan dev") || len(w.Result().Cookies()) > 0 {
			t.Errorf("%s: %d %q", name, w.Code, w.Body)
		}
	}
}

func TestNames(t *testing.T) {
	d := Door{Key: Key("a page", "token")}
	for host, in := range map[string]bool{
		"127.0.0.1:80": true, "localhost:80": true, "LOCALHOST": true, "[::1]:80": true, "[::1]": true, "127.0.0.1": true, "127.8.8.8:1": true,
		"evil.example": false, "localhost.evil.example:80": false, "127.0.0.1.nip.io": false, "192.168.1.1:80": false, "": false,
	} {
		with := func(r *http.Request) { r.Host = host }
		if w := guarded(d, "/?key="+d.Key, with); (w.Code == http.StatusSeeOther) != in {
			t.Errorf("%q: %d", host, w.Code)
		}
		if w := guarded(Door{Key: d.Key, Beyond: true}, "/?key="+d.Key, with); w.Code != http.StatusSeeOther {
			t.Errorf("%q beyond loopback: %d", host, w.Code)
		}
	}
}
