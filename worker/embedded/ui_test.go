package embedded

import (
	"fmt"
	"io"
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

// The door hands its key on to nobody, and adds the token that the page doesn't know.
func TestGuarded(t *testing.T) {
	var seen *http.Request
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		fmt.Fprint(w, "page")
	}))
	defer behind.Close()
	front := httptest.NewServer(guarded(strings.TrimPrefix(behind.URL, "http://"), token))
	defer front.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	status, body := fetch(t, &http.Client{Jar: jar}, uiDoor(token).URL(strings.TrimPrefix(front.URL, "http://")))
	if status != http.StatusOK || body != "page" || seen.Header.Get("Authorization") != "Bearer "+token {
		t.Fatalf("got %d %q with %v", status, body, seen)
	}
	if strings.Contains(fmt.Sprint(seen.Header, seen.URL), uiDoor(token).Key) {
		t.Errorf("the door's own key is handed on: %v %v", seen.URL, seen.Header)
	}
}
