package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/browser"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// documents are reports of every sort, by name, as files.
func documents(t *testing.T) map[string]string {
	home := aHome(t)
	passed(t, home, "passed", 50)
	failed(t, home, "failed", 50)
	invalid(t, home, "invalid", 10)
	failed(t, home, "thousand", 1000)
	nightly(t, home, 8)
	m := newSample(t, home, "matrix", 3)
	m.record.Stages, m.record.Tries = nil, nil
	m.record.Cells = []stage.Cell{{Run: "matrix.1", Values: map[string]any{"rtt": "80ms"}, Verdict: stage.Passed}}
	m.save()
	files := map[string]string{"suite": suiteOf(t, home, "nightly")}
	for _, id := range []string{"passed", "failed", "invalid", "thousand", "matrix"} {
		files[id] = reportOf(t, home, id)
	}
	folder := t.TempDir()
	for name, html := range files {
		files[name] = filepath.Join(folder, name+".html")
		if err := os.WriteFile(files[name], []byte(html), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// faults works out what those who don't see, don't point or see little would stumble over.
const faults = `(() => {
  const faults = [];
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest('.aside');
  const label = (e) => (e.getAttribute('aria-label') || (e.labels && [...e.labels].map((l) => l.textContent).join(' ')) || e.textContent || e.title || '').trim();
  for (const e of document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')) {
    if (!label(e)) faults.push('no name: ' + e.outerHTML.slice(0, 120));
  }
  let last = 0;
  for (const h of document.querySelectorAll('h1, h2, h3, h4')) {
    const level = Number(h.tagName[1]);
    if (level > last + 1) faults.push('a heading of level ' + level + ' behind one of ' + last + ': ' + h.textContent);
    last = level;
  }
  if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
  if (document.querySelectorAll('main').length !== 1) faults.push('not one main');
  if (!document.documentElement.lang || !document.title) faults.push('no language or title');
  const ids = new Set();
  for (const e of document.querySelectorAll('[id]')) { if (ids.has(e.id)) faults.push('two of the id ' + e.id); ids.add(e.id); }
  for (const a of document.querySelectorAll('a[href^="#"]')) if (!ids.has(a.getAttribute('href').slice(1))) faults.push('a link to nowhere: ' + a.href);
  for (const svg of document.querySelectorAll('svg')) {
    if (!svg.closest('[aria-hidden="true"]') && !(svg.getAttribute('role') === 'img' && svg.getAttribute('aria-label'))) faults.push('a picture without words: ' + svg.outerHTML.slice(0, 80));
  }
  for (const th of document.querySelectorAll('th')) if (!th.scope) faults.push('a head cell without scope: ' + th.textContent);
  const numbers = (c) => (c.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || /^(SCRIPT|STYLE|TITLE|DESC)$/i.test(e.tagName) || !seen(e)) continue;
    const style = getComputedStyle(e);
    const colour = numbers(e.closest('svg') ? style.fill : style.color);
    const [a, b] = [light(colour), light(behind(e))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 600;
    if (contrast < (large ? 3 : 4.5)) faults.push('contrast ' + contrast.toFixed(2) + ': ' + walk.currentNode.textContent.trim().slice(0, 40) + ' in ' + e.className);
  }
  if (document.documentElement.scrollWidth > innerWidth) faults.push('wider than the window: ' + document.documentElement.scrollWidth);
  return faults;
})()`

func TestAccessible(t *testing.T) {
	b := browser.Start(t)
	for name, path := range documents(t) {
		page := b.OpenFile(t, path, browser.Phone)
		for _, look := range []browser.Look{browser.Phone, browser.PhoneDark, browser.Desktop, browser.DesktopDark} {
			page.Look(look)
			page.Run(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll('details').forEach((d) => { d.open = true; })`))
			for _, fault := range browser.Evaluate[[]string](page, faults) {
				t.Errorf("%s at %d pixels, dark %v: %s", name, look.Width, look.Dark, fault)
			}
		}
		for _, trouble := range page.Troubles() {
			t.Errorf("%s: %s", name, trouble)
		}
		if requests := page.Requests(); len(requests) != 1 {
			t.Errorf("%s asks for more than itself: %q", name, requests)
		}
	}
}

// press presses a key.
func press(page *browser.Page, key string, code int64) {
	for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
		browser.Call(page, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: kind, Key: key, Code: key, WindowsVirtualKeyCode: code})
	}
}

func TestKeyboard(t *testing.T) {
	page := browser.Start(t).OpenFile(t, documents(t)["failed"], browser.Desktop)
	press(page, "Tab", 9)
	if got := browser.Evaluate[string](page, `document.activeElement.textContent + ' ' + (document.activeElement.getBoundingClientRect().left >= 0) + ' ' + getComputedStyle(document.activeElement).outlineStyle`); got != "Skip to the content true solid" {
		t.Errorf("the first stop is %q", got)
	}
}

func TestFind(t *testing.T) {
	page := browser.Start(t).OpenFile(t, documents(t)["failed"], browser.Desktop)
	seek := func(text, want string) {
		t.Helper()
		got := browser.Evaluate[string](page, fmt.Sprintf(`(() => { const s = document.getElementById('seek'); s.value = %q; s.dispatchEvent(new Event('input')); return document.getElementById('found').textContent; })()`, text))
		if !strings.HasPrefix(got, want) {
			t.Errorf("looking for %q finds %q instead of %q", text, got, want)
		}
	}
	seek("clients/3", "clients/3: crashed, ")
	seek("servers/4", "servers/4: succeeded, ")
	seek("11", "clients/11: no outcome")
	seek("servers/5", "There is no such instance.")
	seek("x", "")
	for _, want := range []string{ // from clients/11 on, and around
		"clients/20: crashed", "clients/28: failed", "clients/37: crashed", "servers/3: crashed", "clients/3: crashed", "clients/5: failed",
	} {
		got := browser.Evaluate[string](page, `(document.getElementById('next').click(), document.getElementById('found').textContent)`)
		if !strings.HasPrefix(got, want) {
			t.Errorf("the next one is %q instead of %q", got, want)
		}
	}
	point := browser.Evaluate[string](page, `(() => { const g = document.querySelector('svg.grid'), box = g.getBoundingClientRect();
		g.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + box.width * 3.5 / 25, clientY: box.top + 2 })); return document.getElementById('found').textContent; })()`)
	if !strings.HasPrefix(point, "clients/3: crashed") {
		t.Errorf("pointing at the fourth cell shows %q", point)
	}
}

// evil is in every place that a run's instances, files or people can write to.
const evil = `</title></style></script></pre></svg></textarea>--><script>window.hacked=1;alert('hacked')</script><img src=x onerror="window.hacked=1;alert('hacked')">" onload="alert(1)" onfocus=alert(2) autofocus x="'` + "`${alert(3)}`" + `{{alert}}` + "\u202e\x1b[31m"

func hostile(t *testing.T, home runs.Home) string {
	s := failed(t, home, "hostile", 20)
	s.groups[0].Name = "clients"
	r := &s.record
	r.Pipeline, r.Description, r.File, r.Digest, r.Ground, r.Commit, r.Suite, r.Turn, r.From = evil, evil, evil, evil, evil, evil, evil, "javascript:alert(4)", "javascript:alert(5)"
	r.Reason = "failed: " + evil
	r.Parameters, r.Versions = map[string]any{evil: evil}, map[string]string{evil: evil}
	r.Stages[3].Stage, r.Stages[3].Reason, r.Stages[2].Notes = evil, evil, []string{evil}
	r.Stages[4].Regressed = []string{evil}
	r.Assertions = []stage.Assertion{{Expr: evil, Position: evil, Explanation: evil}}
	r.Metrics[evil], r.Metrics["clients."+evil], r.Metrics["x.during."+evil] = pipelines.Summary{Count: 5, P50: 1, Max: 3}, pipelines.Summary{Count: 5}, pipelines.Summary{}
	r.Groups[evil] = runs.Group{}
	r.Tries = append(r.Tries, stage.Result{Stage: evil, Verdict: stage.Verdict(evil), Reason: evil})
	s.groups = append(s.groups, pipelines.Group{Name: evil, Instances: 12})
	s.stages = append(s.stages, pipelines.Stage{Name: evil, Kind: pipelines.KindBuild, Build: map[string]pipelines.Source{evil: {}}})
	s.rows(func(_ string, i int) (string, string, []string) {
		return control.OutcomeFailed, evil + strings.Repeat("x", i), []string{evil, `{"ts":1,"event":{"crash_event":{"error":"` + `<script>alert(6)</script>` + `","stacktrace":"<img src=x onerror=alert(7)>"}}}`}
	})
	for _, e := range []runs.Event{{Time: start, Kind: evil, Stage: evil, Text: evil}, {Time: after(21 * 1e9), Kind: runs.KindEventBegan, Stage: evil, Attempt: evil + "-2", Event: evil, Text: evil}} {
		if err := s.folder().AppendEvent(e); err != nil {
			t.Fatal(err)
		}
	}
	s.prove(true)
	s.write(s.folder().Proof(`x" onload="alert(8)`), control.Proof{Shaper: evil, Pairs: []control.Pair{{From: evil, To: evil + "/1", Fault: evil, Asked: control.Figures{Policy: evil}, Achieved: control.Figures{Policy: evil}}}})
	s.save()
	return s.html()
}

// What instances, files and people write is shown as text, and nothing of it is carried out.
func TestNothingExecutes(t *testing.T) {
	home := aHome(t)
	html := hostile(t, home)
	path := filepath.Join(t.TempDir(), "hostile.html")
	if err := os.WriteFile(path, []byte(html), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{"<script>window", "<img", `href="javascript:`, "\u202e", "\x1b"} {
		if strings.Contains(body(html), not) {
			t.Errorf("%q stands in the document", not)
		}
	}
	if n := strings.Count(html, "window.hacked"); n < 20 {
		t.Errorf("only %d of the hostile texts are shown at all", n)
	}
	page := browser.Start(t).OpenFile(t, path, browser.Desktop)
	page.Run(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll('details').forEach((d) => { d.open = true; }); document.getElementById('next').click()`))
	if browser.Evaluate[bool](page, "window.hacked !== undefined") {
		t.Error("a text of the run was carried out")
	}
	for _, trouble := range page.Troubles() {
		t.Error(trouble)
	}
	if requests := page.Requests(); len(requests) != 1 {
		t.Errorf("the page asks for more than itself: %q", requests)
	}
}

// The policy holds by itself: what would get into the page could do nothing.
func TestPolicy(t *testing.T) {
	data, err := os.ReadFile(documents(t)["failed"])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "injected.html")
	injected := strings.Replace(string(data), "<main", `<script>window.hacked = 1</script><img src="file:///etc/passwd" onerror="window.hacked = 1"><p id="styled" style="color: red">x</p><main`, 1)
	if err := os.WriteFile(path, []byte(injected), 0o644); err != nil {
		t.Fatal(err)
	}
	page := browser.Start(t).OpenFile(t, path, browser.Desktop)
	if browser.Evaluate[bool](page, "window.hacked !== undefined || getComputedStyle(document.getElementById('styled')).color === 'rgb(255, 0, 0)'") {
		t.Error("the policy lets in what is none of the page's")
	}
	if !browser.Evaluate[bool](page, "!document.getElementById('find').hidden") {
		t.Error("the policy keeps the page's own script out")
	}
	if len(page.Troubles()) < 3 {
		t.Errorf("the browser has refused only %q", page.Troubles())
	}
}

// A check that could not fail would be none.
func TestFaultsAreFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.html")
	bad := `<!DOCTYPE html><html><head><title>x</title><style>p { color: #999; background: #fff; width: 2000px }</style></head><body><h1>a</h1><h3>b</h3><h1>c</h1>
<p id="p">pale</p><p id="p">again</p><a href="#nowhere">to</a><button></button><svg viewBox="0 0 1 1"></svg><table><tr><th>x</th></tr></table></body></html>`
	if err := os.WriteFile(path, []byte(bad), 0o644); err != nil {
		t.Fatal(err)
	}
	found := strings.Join(browser.Evaluate[[]string](browser.Start(t).OpenFile(t, path, browser.Desktop), faults), "\n")
	for _, want := range []string{"no name: <button>", "a heading of level 3 behind one of 1", "not one h1", "not one main", "no language", "two of the id p", "a link to nowhere", "a picture without words", "without scope: x", "contrast 2.85: pale", "wider than the window"} {
		if !strings.Contains(found, want) {
			t.Errorf("%q isn't found in\n%s", want, found)
		}
	}
}

// frames scrolls from top to bottom and gives the times between frames, in milliseconds.
const frames = `new Promise((done) => {
  const times = []; let last = performance.now(), at = 0;
  const step = (now) => {
    times.push(now - last); last = now; at += 60; window.scrollTo({ top: at, behavior: 'instant' });
    if (at < document.documentElement.scrollHeight && times.length < 600) requestAnimationFrame(step);
    else { times.sort((a, b) => a - b); done([times.length, times[Math.floor(times.length * 0.99)], times[times.length - 1]]); }
  };
  requestAnimationFrame(step);
})`

// How a browser fares with 11,000 instances is told and not judged: it depends on the machine.
func TestTenThousandInBrowser(t *testing.T) {
	home := aHome(t)
	path := filepath.Join(t.TempDir(), "many.html")
	if err := os.WriteFile(path, []byte(failed(t, home, "many", 10_000).html()), 0o644); err != nil {
		t.Fatal(err)
	}
	page := browser.Start(t).OpenFile(t, path, browser.Desktop)
	loaded := browser.Evaluate[float64](page, "performance.getEntriesByType('navigation')[0].loadEventEnd")
	scrolled := browser.Evaluate[[]float64](page, frames)
	pointed := browser.Evaluate[float64](page, `(() => { const g = document.querySelector('svg.grid'), box = g.getBoundingClientRect(), began = performance.now();
		for (let i = 0; i < 100; i++) g.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + i * 4, clientY: box.top + i }));
		return (performance.now() - began) / 100; })()`)
	t.Logf("loaded after %.0f ms; %.0f frames of scrolling: p99 %.1f ms, longest %.1f ms; pointing takes %.2f ms", loaded, scrolled[0], scrolled[1], scrolled[2], pointed)
	for _, trouble := range page.Troubles() {
		t.Error(trouble)
	}
}
