package report

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"math"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
)

//go:embed templates/*.html
var sources embed.FS

//go:embed templates/report.css
var ownStyle string

//go:embed templates/report.js
var script string

// document is what stands around every report.
type document struct {
	Title string
	Style template.CSS
	// Script is nil where a page needs none.
	Script template.JS
	Policy string
	Page   any
}

// templates reads every page's. Each is escaped by where it stands: names, reasons and lines are hostile.
var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"badge": badge, "clock": clock, "instant": instant, "lasted": lasted, "plural": plural,
}).ParseFS(must(fs.Sub(sources, "templates")), "*.html"))

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// titled is a page that knows its title.
type titled interface{ title() string }

// render writes a page as a whole document.
func render(w io.Writer, name string, page titled) error {
	style := Stylesheet + ownStyle
	d := document{
		Title: page.title(), Style: template.CSS(style), Script: template.JS(script), Page: page,
		Policy: fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", fingerprint(style), fingerprint(script)),
	}
	var b bytes.Buffer // a page that can't be made is no half one
	if err := templates.ExecuteTemplate(&b, name+".html", d); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	_, err := b.WriteTo(w)
	return err
}

// fingerprint is how a Content-Security-Policy names a text that it lets in.
func fingerprint(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// badge is a word with the class of its look.
type verdictBadge struct{ Class, Word string }

func badge(v any) verdictBadge {
	switch word := fmt.Sprint(v); stage.Verdict(word) {
	case stage.Passed, stage.Failed, stage.Invalid, stage.Cancelled, stage.Skipped:
		return verdictBadge{word, word}
	case stage.StatusRunning, stage.StatusHolding:
		return verdictBadge{word, word}
	case "":
		return verdictBadge{"skipped", "not begun"}
	default:
		return verdictBadge{"skipped", clean(word, 30)}
	}
}

// clock is a time of day; a report doesn't know where it will be read.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// instant is a time with its day.
func instant(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// lasted is a length of time in about three digits.
func lasted(d time.Duration) string {
	switch {
	case d < 0:
		return "–" + lasted(-max(d, -math.MaxInt64))
	case d == 0:
		return "0 s"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

func plural(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "y"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(what, "y"))
	}
	return fmt.Sprintf("%d %ss", n, what)
}
