package embedded

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
)

// The page shows namespaces of a server that refuses strangers, to who came by its URL and to nobody else.
func TestUI(t *testing.T) {
	s := begin(t, options(t.TempDir()))
	defer s.Stop()
	ui, err := StartUI(t.Context(), UIOptions{Temporal: s.Address(), Namespace: "default", Token: token})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ui.Stop(); err != nil {
			t.Error(err)
		}
	}()
	plain, _, _ := strings.Cut(ui.URL(), "?")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	guest := &http.Client{Jar: jar}
	if status, body := fetch(t, guest, ui.URL()); status != http.StatusOK || !strings.Contains(body, "<html") {
		t.Errorf("the page is %d %.200s", status, body)
	}
	if status, body := fetch(t, guest, plain+"api/v1/namespaces"); status != http.StatusOK || !strings.Contains(body, `"default"`) {
		t.Errorf("the namespaces are %d %.200s", status, body)
	}
	for name, address := range map[string]string{
		"without a key": plain + "api/v1/namespaces", "the page": plain, "another key": plain + "?key=other", "the token": plain + "?key=" + token,
	} {
		if status, body := fetch(t, http.DefaultClient, address); status != http.StatusForbidden || !strings.Contains(body, "groundplan dev") {
			t.Errorf("%s: a stranger gets %d %.200s", name, status, body)
		}
	}
}

func fetch(t *testing.T, c *http.Client, address string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestUIPortTaken(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, err = StartUI(context.Background(), UIOptions{Token: token, Port: listener.Addr().(*net.TCPAddr).Port})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}

// Another site's page can't use the visitor's cookie, and the door hands its key on to nobody.
func TestDoor(t *testing.T) {
	var seen *http.Request
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		fmt.Fprint(w, "page")
	}))
	defer behind.Close()
	handler := door(strings.TrimPrefix(behind.URL, "http://"), token)
	ask := func(address string, change func(*http.Request)) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, address, nil)
		r.Host = "127.0.0.1:1"
		if change != nil {
			change(r)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	entered := ask("/namespaces?key="+pageKey(token), nil)
	cookies := entered.Result().Cookies()
	if entered.Code != http.StatusSeeOther || entered.Header().Get("Location") != "/namespaces" || len(cookies) != 1 {
		t.Fatalf("entering gives %d %v", entered.Code, entered.Header())
	}
	if c := cookies[0]; !c.HttpOnly || c.SameSite != http.SameSiteStrictMode {
		t.Errorf("the cookie is %v", c)
	}
	with := func(r *http.Request) { r.AddCookie(cookies[0]) }
	if w := ask("/api", with); w.Body.String() != "page" || seen.Header.Get("Authorization") != "Bearer "+token {
		t.Errorf("got %q with %v", w.Body, seen.Header)
	}
	if strings.Contains(seen.Header.Get("Cookie"), pageKey(token)) {
		t.Error("the door's own cookie is handed on")
	}
	if w := ask("/api", func(r *http.Request) { with(r); r.Host = "evil.example:80" }); w.Code != http.StatusForbidden {
		t.Errorf("a name that was pointed at loopback gets %d", w.Code)
	}
	if w := ask("//evil.example/?key="+pageKey(token), nil); strings.HasPrefix(w.Header().Get("Location"), "//") {
		t.Errorf("the door leads to %s", w.Header().Get("Location"))
	}
}
