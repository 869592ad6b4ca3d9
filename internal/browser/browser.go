// Package browser shows pages to tests in a headless Chromium: at a width, in light or dark, and with what went wrong on
// the way. Where no Chromium is, a test that asks for one is skipped and says why.
package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// names are what a Chromium is called.
var names = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

// patience bounds one step of a test.
const patience = 60 * time.Second

// Look is how a page is looked at.
type Look struct {
	// Width and Height are of the window, in pixels.
	Width, Height int
	Dark          bool
	// Still asks for reduced motion.
	Still bool
}

// The looks that every page has to stand.
var (
	Phone       = Look{Width: 390, Height: 844}
	PhoneDark   = Look{Width: 390, Height: 844, Dark: true}
	Desktop     = Look{Width: 1280, Height: 900}
	DesktopDark = Look{Width: 1280, Height: 900, Dark: true}
)

// Browser is a Chromium of a test's own.
type Browser struct{ ctx context.Context }

// Start starts a browser, which ends with the test. It skips the test where there is none.
func Start(t testing.TB) *Browser {
	t.Helper()
	path := find()
	if path == "" {
		t.Skipf("there is no Chromium here (looked for %v in PATH): install Debian's package chromium", names)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.UserDataDir(filepath.Join(t.TempDir(), "profile")), chromedp.WSURLReadTimeout(patience))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses to make one as root
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, closed := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits until it is gone, so that its profile can be removed
		closed()
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	return &Browser{ctx}
}

func find() string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// Page is an open page.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	troubles []string
	requests []string
}

// Open opens an address in a tab of its own. Dialogs are dismissed and count as trouble.
func (b *Browser) Open(t testing.TB, url string, look Look) *Page {
	t.Helper()
	ctx, closed := chromedp.NewContext(b.ctx)
	t.Cleanup(closed)
	p := &Page{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, p.heard); err != nil {
		t.Fatalf("opening a tab: %v", err)
	}
	p.Run(call(log.Enable, cdp.Empty{}), call(network.Enable, network.EnableParams{}), call(runtime.Enable, cdp.Empty{}))
	p.Look(look)
	p.Run(chromedp.Navigate(url))
	return p
}

// OpenFile opens a file.
func (b *Browser) OpenFile(t testing.TB, path string, look Look) *Page {
	t.Helper()
	absolute, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return b.Open(t, "file://"+absolute, look)
}

// heard notes what a page should not do.
func (p *Page) heard(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *page.EventJavascriptDialogOpening:
		p.troubles = append(p.troubles, "a dialog opened: "+e.Message)
		go func() { _ = chromedp.Do(p.ctx, call(page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{})) }()
	case *runtime.EventExceptionThrown:
		p.troubles = append(p.troubles, "an exception: "+exception(e.ExceptionDetails))
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Source == log.EntrySourceSecurity {
			p.troubles = append(p.troubles, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, e.Request.URL)
	}
}

func exception(d *runtime.ExceptionDetails) string {
	if d.Exception != nil && d.Exception.Description != "" {
		return d.Exception.Description
	}
	return d.Text
}

// Troubles are the dialogs, exceptions and refusals (of the Content-Security-Policy) so far.
func (p *Page) Troubles() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.troubles)
}

// Requests are the addresses that the page has asked for, its own the first.
func (p *Page) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// call is a command of the browser's protocol, as an action.
func call[P, R any](command cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, command, params)
		return err
	})
}

// Run carries actions out; what fails ends the test.
func (p *Page) Run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	run(p, chromedp.Steps(actions...))
}

// run carries one action out and returns what it came to.
func run[T any](p *Page, action chromedp.Action[T]) T {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.ctx, patience)
	defer stop()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		p.t.Fatalf("in the browser: %v", err)
	}
	return value
}

// Look changes how the page is looked at.
func (p *Page) Look(look Look) {
	p.t.Helper()
	scheme, motion := "light", "no-preference"
	if look.Dark {
		scheme = "dark"
	}
	if look.Still {
		motion = "reduce"
	}
	p.Run(
		call(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: int64(look.Width), Height: int64(look.Height), DeviceScaleFactor: 1, Mobile: look.Width < 600,
		}),
		call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
		}}),
	)
}

// Evaluate works a JavaScript expression out; promises are waited for. What it comes to is read as JSON.
func Evaluate[T any](p *Page, expression string) T {
	p.t.Helper()
	return run(p, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// Until waits for an expression to be true.
func (p *Page) Until(expression string) {
	p.t.Helper()
	run(p, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(patience), chromedp.WithPollingInterval(50*time.Millisecond)))
}

// Screenshot writes what the window shows to a PNG file; with whole, all of the page.
func (p *Page) Screenshot(path string, whole bool) {
	p.t.Helper()
	action := chromedp.CaptureScreenshot()
	if whole {
		action = chromedp.FullScreenshot(100)
	}
	if err := os.WriteFile(path, run(p, action), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// Call gives the browser a command of its protocol; what fails ends the test.
func Call[P, R any](p *Page, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	return run(p, func(ctx context.Context, t *chromedp.Target) (R, error) { return cdp.Call(ctx, t, command, params) })
}
