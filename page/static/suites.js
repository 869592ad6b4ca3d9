// The suites, or one of them: what their turns came to, and when the next one is due.

import { byId, el, known, painter, say, show } from "./elements.js";
import { age, date, duration, moment, shortDate } from "./format.js";
import { post, suitePath } from "./api.js";
import { follow } from "./stream.js";

const only = location.pathname.split("/")[2] ? decodeURIComponent(location.pathname.split("/")[2]) : "";
const suites = new Map();
const sections = new Map();
const signs = { passed: "✔", failed: "✘", invalid: "⚠", cancelled: "■", running: "●", skipped: "–" };
const paint = painter(draw);

if (only) document.title = only + " · groundplan";
setInterval(() => { if (!document.hidden) paint(); }, 15_000);

follow(only ? suitePath(only, "stream") : "/api/suites/stream", {
  reset: () => suites.clear(),
  suite: (suite) => { suites.set(suite.name, suite); paint(); },
  gone: ({ name }) => { suites.delete(name); paint(); },
  note: ({ text }) => show(byId("trouble"), text),
  ready: paint,
});

function draw() {
  byId("empty").hidden = suites.size > 0;
  if (only && !suites.size) say(byId("empty"), "No suite " + only + " has a schedule or a history here.");
  for (const [name, section] of sections) {
    if (!suites.has(name)) { section.remove(); sections.delete(name); }
  }
  for (const name of [...suites.keys()].sort()) {
    const suite = suites.get(name);
    let section = sections.get(name);
    if (!section) {
      section = make(name);
      sections.set(name, section);
    }
    byId("suites").append(section);
    fill(section, suite);
  }
}

function make(name) {
  const parts = { says: el("p", { class: "about dim" }), actions: el("div", { class: "actions", role: "group", "aria-label": "What can be done with " + name }), body: el("div") };
  const heading = only ? el("h2", {}, name) : el("h2", {}, el("a", { href: "/suites/" + encodeURIComponent(name) }, name));
  const section = el("section", { class: "suite" }, el("div", { class: "title" }, heading, parts.actions), parts.says, parts.body);
  section.parts = parts;
  return section;
}

function fill(section, suite) {
  const { parts } = section;
  const next = moment(suite.next);
  say(parts.says, [suite.when ?? "", !suite.scheduled ? "no schedule any more" : suite.paused ? "paused" + (suite.note ? ": " + suite.note : "") : next ? "next turn " + date(next) : "",
    suite.turns.length ? "last turn " + age(moment(suite.turns[0].started)) : "no turn yet"].filter(Boolean).join(" · "));
  const key = JSON.stringify([suite.scheduled, suite.paused, suite.turns.length > 0]);
  if (section.key !== key) {
    section.key = key;
    parts.actions.replaceChildren(...buttons(suite));
  }
  if (section.turns !== suite.turns) {
    section.turns = suite.turns;
    parts.body.replaceChildren(...(suite.turns.length ? [history(suite), ...(only ? [list(suite)] : [last(suite.turns[0])])] : []));
  }
}

function buttons(suite) {
  const made = [];
  const add = (text, kind, what, body, said) => {
    const button = el("button", { type: "button", class: kind }, text);
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await post(suitePath(suite.name, what), body);
        show(byId("done"), said);
      } catch (error) {
        show(byId("done"), "That was refused: " + error.message);
      } finally {
        button.disabled = false;
      }
    });
    made.push(button);
  };
  if (suite.scheduled) {
    add("Run a turn now", "main", "trigger", {}, `A turn of ${suite.name} begins.`);
    if (suite.paused) add("Unpause", "", "unpause", {}, `${suite.name} has turns again.`);
    else add("Pause", "", "pause", { note: "from the live page" }, `${suite.name} has no turns until it is unpaused.`);
  }
  if (suite.turns.length) made.push(el("a", { class: "button", href: `/suites/${encodeURIComponent(suite.name)}/report.html` }, "Report"));
  return made;
}

// history is a table of pipelines × turns, the newest turn first.
function history(suite) {
  const pipelines = [...new Set(suite.turns.flatMap((t) => t.runs.map((r) => r.pipeline)))];
  const head = el("tr", {}, el("th", { scope: "col" }, "Pipeline"), ...suite.turns.map((t) => el("th", { scope: "col", title: t.id }, shortDate(moment(t.started)))), el("th", { scope: "col" }, "Not passed since"));
  const rows = pipelines.map((name) => {
    const marks = suite.turns.map((t) => el("td", {}, mark(t.runs.find((r) => r.pipeline === name))));
    const newest = suite.turns[0].runs.find((r) => r.pipeline === name);
    return el("tr", {}, el("th", { scope: "row" }, name), ...marks, el("td", { class: "dim" }, newest?.since ?? ""));
  });
  return el("div", { class: "scroll" }, el("table", { class: "turns" }, el("caption", { class: "aside" }, "What the pipelines came to, turn by turn"), el("thead", {}, head), el("tbody", {}, ...rows)));
}

function mark(run) {
  if (!run) return "";
  const word = run.verdict || (run.run ? "running" : "skipped");
  const regressed = run.regressed?.length ? ", worse: " + run.regressed.join(", ") : "";
  const properties = { class: "mark " + known(word), title: word + (run.reason ? ": " + run.reason : "") + regressed };
  const inside = [el("span", { "aria-hidden": "true" }, run.regressed?.length && word === "passed" ? "↓" : signs[word] ?? "?"), el("span", { class: "aside" }, word + regressed)];
  return run.run ? el("a", { ...properties, href: "/runs/" + encodeURIComponent(run.run) }, ...inside) : el("span", properties, ...inside);
}

function last(turn) {
  return el("p", {}, turn.reason ?? "");
}

// list is every turn with what there is to say of it.
function list(suite) {
  const rows = suite.turns.map((t) => {
    const began = moment(t.started), until = moment(t.ended);
    return el("tr", {}, el("th", { scope: "row", class: "mono" }, t.id), el("td", {}, el("span", { class: "badge " + known(t.verdict || t.status) }, t.verdict || t.status)),
      el("td", { class: "n" }, began && until ? duration((until - began) / 1000) : ""), el("td", {}, t.trigger), el("td", {}, t.reason ?? ""), el("td", { class: "dim" }, t.notified ?? ""));
  });
  const more = suite.older ? [el("p", { class: "dim small" }, `${suite.older} older turns are in the report.`)] : [];
  return el("div", {}, el("div", { class: "scroll" }, el("table", { class: "figures" }, el("thead", {}, el("tr", {}, ...["Turn", "Verdict", "Took", "Why", "What came of it", "Told"].map((t, i) => el("th", { scope: "col", class: i === 2 ? "n" : "" }, t)))), el("tbody", {}, ...rows))), ...more);
}
