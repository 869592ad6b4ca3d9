// The list of runs.

import { badge, byId, el, options, painter, say, show } from "./elements.js";
import { age, count, date, duration, moment } from "./format.js";
import { follow } from "./stream.js";
import { Rows } from "./rows.js";

const runs = new Map();
let older = 0;
const rows = new Rows(byId("runs"), makeRow, fillRow);
const filters = { words: byId("words"), verdict: byId("verdict"), pipeline: byId("pipeline"), suite: byId("suite") };
const cells = byId("cells");
const paint = painter(draw);

restore();
for (const field of [...Object.values(filters), cells]) field.addEventListener("input", () => { keep(); paint(); });
document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, textarea") && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    filters.words.focus();
  } else if (event.key === "Escape" && event.target === filters.words) {
    filters.words.value = "";
    keep();
    paint();
  }
});
setInterval(() => { if (!document.hidden) rows.refresh(); }, 5000);

follow("/api/runs/stream", {
  reset: () => runs.clear(),
  rows: (change) => {
    for (const id of change.gone ?? []) runs.delete(id);
    for (const run of change.set ?? []) runs.set(run.id, prepared(run));
    older = change.older ?? 0;
    paint();
  },
  note: ({ text }) => show(byId("trouble"), text),
  ready: () => paint(),
});

// prepared is a run with what the list sorts and searches by.
function prepared(run) {
  run.at = moment(run.started) ?? 0;
  run.until = moment(run.ended);
  run.says = run.verdict || run.status;
  run.search = [run.id, run.pipeline, run.suite, run.reason, run.stage].filter(Boolean).join("\n").toLowerCase();
  return run;
}

function draw() {
  const all = [...runs.values()].sort((a, b) => b.at - a.at || (a.id < b.id ? -1 : 1));
  options(filters.pipeline, [...new Set(all.map((r) => r.pipeline))].filter(Boolean).sort(), undefined, 1);
  options(filters.suite, [...new Set(all.map((r) => r.suite))].filter(Boolean).sort(), undefined, 1);
  restore();
  const words = filters.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = all.filter((run) =>
    (cells.checked || !run.parent) &&
    (!filters.verdict.value || run.says === filters.verdict.value) &&
    (!filters.pipeline.value || run.pipeline === filters.pipeline.value) &&
    (!filters.suite.value || run.suite === filters.suite.value) &&
    words.every((word) => run.search.includes(word)));
  rows.set(wanted);
  byId("empty").hidden = all.length > 0;
  const hidden = older > 0 ? `; ${count(older, "older one")} not shown` : "";
  say(byId("count"), all.length === 0 ? "" : wanted.length === all.length ? count(all.length, "run") + hidden : `${wanted.length.toLocaleString("en")} of ${count(all.length, "run")}${hidden}`);
}

function makeRow() {
  const parts = {
    badge: el("span", { class: "badgecell" }), name: el("a", { class: "mono" }), pipeline: el("span", { class: "pipeline" }),
    why: el("span", { class: "why" }), took: el("span", { class: "n took" }), age: el("span", { class: "n age" }),
  };
  const row = el("div", { class: "run" }, parts.badge, parts.name, parts.pipeline, parts.why, parts.took, parts.age);
  row.parts = parts;
  return row;
}

function fillRow(row, run) {
  const { parts } = row;
  if (row.says !== run.says) parts.badge.replaceChildren(badge((row.says = run.says)));
  const href = "/runs/" + encodeURIComponent(run.id);
  if (parts.name.getAttribute("href") !== href) parts.name.href = href;
  say(parts.name, run.id);
  say(parts.pipeline, run.pipeline);
  say(parts.why, why(run));
  parts.why.title = run.reason ?? "";
  say(parts.took, run.at ? duration(((run.until ?? Date.now()) - run.at) / 1000) : "");
  say(parts.age, run.at ? age(run.at) : "");
  parts.age.title = date(run.at || undefined);
}

// why is the reason without the verdict before it, which the badge says.
function why(run) {
  if (run.status !== "ended") return run.stage ? "stage " + run.stage + (run.reason ? ": " + run.reason : "") : run.reason ?? "";
  return (run.reason ?? "").replace(/^(passed|failed|invalid|cancelled): /, "");
}

// The filters are kept in the address, so that a list can be kept and shown to others.
function keep() {
  const query = new URLSearchParams();
  for (const [name, field] of Object.entries(filters)) if (field.value) query.set(name, field.value);
  if (cells.checked) query.set("cells", "1");
  history.replaceState(null, "", query.size ? "?" + query : location.pathname);
}

function restore() {
  const query = new URLSearchParams(location.search);
  for (const [name, field] of Object.entries(filters)) {
    const wanted = query.get(name) ?? "";
    if (field.value !== wanted) field.value = wanted;
    if (field.value !== wanted && field.tagName === "SELECT") field.value = "";
  }
  cells.checked = query.has("cells");
}
