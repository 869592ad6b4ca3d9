package browser

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const small = `<!DOCTYPE html><title>small</title><style>body{color:black}@media(prefers-color-scheme:dark){body{color:white}}</style>
<p id=p>text</p><button id=b onclick="document.getElementById('p').textContent='pressed'">press</button>`

func write(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLook(t *testing.T) {
	page := Start(t).OpenFile(t, write(t, small), Phone)
	check := func(width int, colour string) {
		t.Helper()
		if got := Evaluate[int](page, "innerWidth"); got != width {
			t.Errorf("the window is %d pixels wide instead of %d", got, width)
		}
		if got := Evaluate[string](page, "getComputedStyle(document.body).color"); got != colour {
			t.Errorf("the text is %s instead of %s", got, colour)
		}
	}
	check(980, "rgb(0, 0, 0)") // as a phone shows a page that doesn't name its width
	page.Look(DesktopDark)
	check(1280, "rgb(255, 255, 255)")
	picture := filepath.Join(t.TempDir(), "picture.png")
	page.Screenshot(picture, false)
	if data, err := os.ReadFile(picture); err != nil || !strings.HasPrefix(string(data), "\x89PNG") {
		t.Errorf("the picture is none: %v", err)
	}
	page.Run(chromedp.Click(chromedp.CSS("#b")))
	page.Until("document.getElementById('p').textContent === 'pressed'")
	if troubles := page.Troubles(); len(troubles) > 0 {
		t.Errorf("a page without faults has troubles: %v", troubles)
	}
}

// What a page must not do is heard of: a check that could not fail would be none.
func TestTroubles(t *testing.T) {
	page := Start(t).OpenFile(t, write(t, `<!DOCTYPE html><meta http-equiv="Content-Security-Policy" content="img-src 'none'">
<img src="http://127.0.0.1:9/x.png"><script>setTimeout(() => { alert('here'); undefinedFunction() }, 0)</script>`), Desktop)
	page.Run(chromedp.Sleep(500 * time.Millisecond))
	said := strings.Join(page.Troubles(), "\n")
	for _, want := range []string{"a dialog opened: here", "undefinedFunction", "Content Security Policy"} {
		if !strings.Contains(said, want) {
			t.Errorf("nothing was heard of %q:\n%s", want, said)
		}
	}
	if len(page.Requests()) == 0 {
		t.Error("no request was heard of")
	}
}
