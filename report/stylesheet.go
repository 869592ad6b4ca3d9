package report

// Stylesheet is the look of reports and of the live page. Every colour is a custom property with a light and a dark value
// and keeps a contrast of 4.5 to 1 on the paper; text that only orders is `dim`. What a page may use:
//
//	.badge.passed|failed|invalid|cancelled|skipped|running|holding   a verdict: sign, colour and word
//	table.figures, .scroll                                           tables; td.n for figures, tr.head for a part's head
//	.facts (dl), .note, .dim, .mono, .lines (pre)                    what is said beside
//	.skip, .aside (only for screen readers)                          for those who don't see or don't point
//	main, section, figure, nav.parts                                 the frame
const Stylesheet = `
:root {
  color-scheme: light dark;
  --paper: #fcfbf9; --raised: #f4f2ee; --ink: #1d1c1a; --dim: #605c55; --line: #dcd8d0; --strong-line: #8d877c;
  --accent: #1c5a9c; --focus: #1c5a9c;
  --passed: #1c6b3c; --failed: #b01f1b; --invalid: #855300; --cancelled: #605c55; --running: #1c5a9c;
  --passed-wash: #e4f1e8; --failed-wash: #fbe6e4; --invalid-wash: #f8ecd3; --cancelled-wash: #eceae5; --running-wash: #e2edf8;
  --s1: #1c5a9c; --s2: #a8480d; --s3: #2e7050; --s4: #7d3f98; --s5: #7a6200; --s6: #4d4a45;
  --sans: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #141517; --raised: #1d1f22; --ink: #e9e7e3; --dim: #a8a39a; --line: #33363a; --strong-line: #7d7a74;
    --accent: #8abcf5; --focus: #8abcf5;
    --passed: #74d095; --failed: #ff9088; --invalid: #ecbd62; --cancelled: #b5b0a7; --running: #8abcf5;
    --passed-wash: #16301f; --failed-wash: #3f1a18; --invalid-wash: #382a0e; --cancelled-wash: #2a2b2d; --running-wash: #17293d;
    --s1: #8abcf5; --s2: #f2a36b; --s3: #7fcfa4; --s4: #d6a0ee; --s5: #dcc35a; --s6: #bdb8af;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 400 15px/1.5 var(--sans); font-variant-numeric: tabular-nums; }
main, header.top, footer.end { max-width: 76rem; margin: 0 auto; padding: 0 1.25rem; }
main { padding-bottom: 3rem; }
footer.end { border-top: 1px solid var(--line); padding-top: 1rem; padding-bottom: 2rem; color: var(--dim); font-size: .87rem; }
h1, h2, h3, h4 { line-height: 1.25; font-weight: 600; margin: 0; text-wrap: balance; }
h1 { font-size: 1.05rem; }
h2 { font-size: 1.2rem; }
h3 { font-size: 1rem; }
h4 { font-size: .93rem; }
p { margin: .4rem 0; max-width: 46rem; }
a { color: var(--accent); text-underline-offset: .15em; text-decoration-thickness: 1px; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; border-radius: 2px; }
.skip { position: absolute; left: -100vw; top: 0; padding: .6rem 1rem; background: var(--paper); color: var(--accent); z-index: 9; }
.skip:focus { left: 0; }
.aside { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.dim { color: var(--dim); }
.mono, code, kbd { font-family: var(--mono); font-size: .92em; overflow-wrap: anywhere; }
.note { border-left: 3px solid var(--strong-line); padding: .1rem 0 .1rem .8rem; margin: .6rem 0; color: var(--dim); }
section { margin-top: 2.4rem; }
section > h2 { border-top: 1px solid var(--line); padding-top: .9rem; margin-bottom: .7rem; }

.badge { display: inline-block; white-space: nowrap; padding: 0 .5em; border-radius: .3em; font-weight: 600; font-size: .9em;
  color: var(--cancelled); background: var(--cancelled-wash); }
.badge::before { content: "–\00a0" / ""; }
.badge.passed { color: var(--passed); background: var(--passed-wash); } .badge.passed::before { content: "✔\00a0" / ""; }
.badge.failed { color: var(--failed); background: var(--failed-wash); } .badge.failed::before { content: "✘\00a0" / ""; }
.badge.invalid { color: var(--invalid); background: var(--invalid-wash); } .badge.invalid::before { content: "⚠\FE0E\00a0" / ""; }
.badge.same::before { content: "=\00a0" / ""; } .badge.untested::before { content: "?\00a0" / ""; }
.badge.cancelled::before { content: "■\00a0" / ""; }
.badge.running { color: var(--running); background: var(--running-wash); } .badge.running::before { content: "●\00a0" / ""; }
.badge.holding { color: var(--invalid); background: var(--invalid-wash); } .badge.holding::before { content: "‖\00a0" / ""; }

.scroll { overflow-x: auto; }
table.figures { border-collapse: collapse; font-size: .9rem; width: 100%; }
table.figures caption { text-align: left; color: var(--dim); padding-bottom: .3rem; }
table.figures th, table.figures td { text-align: left; vertical-align: top; padding: .28rem .9rem .28rem 0; border-bottom: 1px solid var(--line); }
table.figures thead th { color: var(--dim); font-weight: 500; font-size: .85em; white-space: nowrap; border-bottom-color: var(--strong-line); }
table.figures tbody th { font-weight: 500; }
table.figures .n { text-align: right; white-space: nowrap; }
table.figures td.n + td:not(.n), table.figures th.n + th:not(.n) { padding-left: .6rem; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.1rem; margin: .6rem 0; font-size: .93rem; }
dl.facts dt { color: var(--dim); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
pre.lines { margin: .4rem 0; padding: .6rem .8rem; background: var(--raised); border-radius: .3rem; font: .82rem/1.5 var(--mono);
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 28rem; overflow-y: auto; }
details > summary { cursor: pointer; padding: .25rem 0; }
details > summary:hover { color: var(--accent); }
figure { margin: .6rem 0; }
figcaption { color: var(--dim); font-size: .87rem; }
button, input, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--strong-line); border-radius: .3rem; padding: .25rem .6rem; min-height: 2rem; }
button { cursor: pointer; }
button:hover { background: var(--raised); }
nav.parts ul { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; list-style: none; margin: 0; padding: 0; font-size: .93rem; }
nav.parts a { display: inline-block; padding: .15rem 0; }

@media (max-width: 40rem) {
  main, header.top, footer.end { padding-left: 1rem; padding-right: 1rem; }
  dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin-bottom: .45rem; }
}
@media print {
  :root { --paper: #fff; --raised: #fff; }
  nav.parts, .skip, .tools { display: none; }
  section, figure { break-inside: avoid-page; }
  pre.lines { max-height: none; border: 1px solid var(--line); }
}
`
