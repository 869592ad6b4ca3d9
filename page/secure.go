package page

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// The policies of the documents: nothing from elsewhere, no script or style inside a document, nobody's frame. A report has
// its own style and script inside, which its own policy names one by one; it may load and send nothing.
const (
	pagePolicy   = "default-src 'self'; base-uri 'none'; form-action 'none'; object-src 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
	reportPolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// secured sets what every answer carries, refusals among them.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", pagePolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Frame-Options", "DENY")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		if strings.HasPrefix(r.URL.Path, "/api/") {
			header.Set("Cache-Control", "no-store")
			if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
				fail(w, http.StatusForbidden, "only the page itself may ask this")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// tokenHeader carries the token of /api/hello with every POST.
const tokenHeader = "X-Groundplan-Token"

// mostBody is how long the body of a POST may be, in bytes.
const mostBody = 16 << 10

// wish reads the body of a POST into v, or refuses: only the page itself may change something.
func (p *Page) wish(w http.ResponseWriter, r *http.Request, v any) bool {
	if !sameOrigin(r) {
		fail(w, http.StatusForbidden, "the request comes from another site")
		return false
	}
	if subtle.ConstantTimeCompare([]byte(r.Header.Get(tokenHeader)), []byte(p.token)) != 1 {
		fail(w, http.StatusForbidden, "the page is older than the services: load it again")
		return false
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		fail(w, http.StatusBadRequest, "the body of the request is not what it should be: "+err.Error())
		return false
	}
	return true
}

// sameOrigin says whether a request was made by a document of this page. A browser says so in one header or the other.
func sameOrigin(r *http.Request) bool {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	if site == "" && origin == "" || site != "" && site != "same-origin" {
		return false
	}
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// answer writes a document.
func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a reader who has gone misses nothing
}

// fail writes one sentence about what is wrong.
func fail(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text})
}
