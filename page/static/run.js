// One run, as it goes.

import { badge, byId, el, options, painter, say, show } from "./elements.js";
import { bytes, count, date, duration, moment, value } from "./format.js";
import { get, runPath } from "./api.js";
import { follow } from "./stream.js";
import { offer } from "./actions.js";
import { Stages } from "./stages.js";
import { Grid, outcomes } from "./grid.js";
import { Logs } from "./logs.js";
import { Measured } from "./measured.js";
import { Events } from "./events.js";

const id = decodeURIComponent(location.pathname.split("/")[2]);
const stages = new Stages();
const measured = new Measured();
const events = new Events();
const logs = new Logs(id);
const grid = new Grid(choose);
let head = { id, status: "" };
let chosen = ""; // the stage of the grid that a person has chosen
let shown = ""; // the stage of the grid
let attempt = "";
let reasons = [];
let known = new Set(); // stages with outcomes

document.title = id + " · groundplan";
say(byId("name"), id);

const paint = painter(() => {
  stages.draw();
  offer(head, stages.list);
  drawVerdict();
});
const paintInstances = painter(drawInstances);
setInterval(() => { if (!document.hidden && head.status === "running") paint(); }, 1000);

follow(runPath(id, "stream"), {
  reset: () => { stages.reset(); events.reset(); measured.reset(); },
  head: takeHead,
  stages: (message) => { stages.take(message); paint(); },
  outcomes: takeOutcomes,
  events: (message) => events.take(message),
  metrics: (message) => measured.take(message),
  network: (proof) => measured.prove(proof),
  note: ({ text }) => show(byId("trouble"), text),
  ready: () => paint(),
});

function takeHead(message) {
  head = message;
  stages.advance(head.progress);
  show(byId("trouble"), head.asking ? "What is shown may be old, the services do not answer: " + head.asking : "");
  drawAbout();
  measured.assert(head.assertions);
  grid.place(head.groups ?? []);
  byId("instances").hidden = !(head.groups ?? []).length || Boolean(head.matrix);
  paint();
  paintInstances();
}

function drawVerdict() {
  const word = head.verdict || head.status;
  const text = sentence();
  const key = word + text;
  const line = byId("verdict");
  if (line.dataset.key === key) return;
  line.dataset.key = key;
  line.replaceChildren(badge(word || "…"), text);
  document.title = `${word}: ${id} · groundplan`;
}

// sentence is what there is to say of the run at this moment.
function sentence() {
  switch (head.status) {
    case "gone": return "There is nothing of this run here: it never was, or its folder has been removed.";
    case "interrupted": return `Nobody carries this run. groundplan resume ${id} takes it up again.`;
    case "holding": return `waits for a decision about stage ${head.holding?.stage ?? ""}`;
    case "ended": return (head.reason ?? "").replace(/^(passed|failed|invalid|cancelled): /, "");
  }
  const under = stages.list.filter((s) => s && (s.phase === "running" || s.phase === "backoff")).map((s) => s.name);
  if (head.matrix) return count(under.length, "cell") + " under way";
  return under.length ? "at stage " + under.slice(0, 5).join(", ") : "";
}

function drawAbout() {
  const began = moment(head.started), until = moment(head.ended);
  const parts = [head.pipeline ?? "", head.file ?? "", head.ground ? "on " + head.ground : "", began ? "since " + date(began) : "",
    began && until ? "took " + duration((until - began) / 1000) : "", head.commit ? "commit " + head.commit.slice(0, 12) : ""].filter(Boolean);
  const about = byId("about");
  const links = [];
  if (head.suite) links.push(" · suite ", el("a", { href: "/suites/" + encodeURIComponent(head.suite) }, head.suite));
  if (head.from) links.push(" · from ", el("a", { href: "/runs/" + encodeURIComponent(head.from) }, head.from));
  const parent = /^(.+)\.[1-9][0-9]*$/.exec(id);
  if (head.cell && parent) links.push(" · cell of ", el("a", { href: "/runs/" + encodeURIComponent(parent[1]) }, parent[1]));
  const key = parts.join() + links.join();
  if (about.dataset.key === key) return;
  about.dataset.key = key;
  about.replaceChildren(parts.join(" · "), ...links);
  const facts = [];
  const fact = (name, text) => facts.push(el("dt", {}, name), el("dd", {}, text));
  if (head.description) fact("description", head.description);
  for (const [name, v] of Object.entries({ ...head.parameters, ...head.cell })) fact(name, value(v));
  if (head.seed) fact("seed", head.seed);
  for (const [name, v] of Object.entries(head.versions ?? {})) fact(name, v);
  byId("facts").replaceChildren(...facts);
  byId("more").hidden = !facts.length;
}

// takeOutcomes takes those of the stage that is shown; a stage that is new is shown, unless a person has chosen another.
function takeOutcomes(message) {
  known.add(message.stage);
  for (const stage of message.stages ?? []) known.add(stage);
  const order = new Map(stages.list.map((s, i) => [s?.name, i]));
  options(byId("gridstage"), [...known].sort((a, b) => (order.get(a) ?? 0) - (order.get(b) ?? 0)));
  if (message.stage !== shown) {
    if (chosen && chosen !== message.stage) return paintInstances();
    shown = message.stage;
    attempt = "";
  }
  byId("gridstage").value = shown;
  if (message.whole) {
    attempt = message.attempt;
    reasons = message.reasons ?? [];
    grid.whole(message.whole);
  } else if (message.attempt === attempt) {
    reasons = reasons.concat(message.reasons ?? []);
    grid.add(message.fresh ?? []);
  } else {
    load(message.stage);
  }
  paintInstances();
}

async function load(stage) {
  try {
    const message = await get(runPath(id, "outcomes"), { stage });
    if (stage === shown) takeOutcomes(message);
  } catch (error) {
    say(byId("gridsays"), error.message);
  }
}

byId("gridstage").addEventListener("change", (event) => {
  chosen = shown = event.target.value;
  attempt = "";
  load(shown);
});

function drawInstances() {
  const groups = head.groups ?? [];
  const sums = grid.counts();
  const total = {};
  for (const group of sums) for (const [letter, n] of Object.entries(group)) total[letter] = (total[letter] ?? 0) + n;
  byId("tally").replaceChildren(...Object.keys(outcomes).filter((l) => total[l]).map((l) => el("span", {}, el("i", { class: "i-" + (/[a-z]/.test(l) ? l : "n") }), `${total[l].toLocaleString("en")} ${outcomes[l]}`)));
  const letters = Object.keys(outcomes).filter((l) => total[l]);
  byId("groups").replaceChildren(
    el("caption", {}, shown ? `How instances ended in stage ${shown}` : head.status === "ended" ? "No instance was run" : "No instance has ended yet"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Group"), el("th", { class: "n", scope: "col" }, "instances"), ...letters.map((l) => el("th", { class: "n", scope: "col" }, outcomes[l])),
      ...(head.figures ? ["peak memory", "CPU"].map((t) => el("th", { class: "n", scope: "col" }, t)) : []))),
    el("tbody", {}, ...groups.slice(0, 200).map((g, i) => el("tr", {}, el("th", { scope: "row" }, g.name), el("td", { class: "n" }, g.instances.toLocaleString("en")),
      ...letters.map((l) => el("td", { class: "n" }, (sums[i]?.[l] ?? 0).toLocaleString("en"))),
      ...(head.figures ? [bytes(head.figures[g.name]?.peakMemory?.max), duration(head.figures[g.name]?.cpu?.max)].map((t) => el("td", { class: "n" }, t)) : [])))));
  byId("gridstage").parentElement.hidden = !known.size;
  byId("grid").setAttribute("aria-label", `${count(groups.reduce((n, g) => n + g.instances, 0), "instance")}${shown ? " in stage " + shown : ""}: ` +
    (letters.map((l) => `${total[l]} ${outcomes[l]}`).join(", ") || "none has ended") + ". Arrow keys move, n goes to the next that did not succeed, Enter shows it.");
  drawFailures(groups);
}

function drawFailures(groups) {
  const box = byId("failures");
  const list = reasons.slice(0, 50).filter((r) => groups[r.g]);
  const key = shown + attempt + list.length;
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  const rows = list.map((r) => {
    const name = groups[r.g].name;
    const button = el("button", { type: "button" }, `${name}/${r.i}`);
    button.addEventListener("click", () => choose(name, r.i));
    return el("li", {}, button, el("span", { class: "dim" }, r.outcome), el("span", {}, r.reason));
  });
  box.replaceChildren(...(rows.length ? [el("h3", {}, reasons.length > 50 ? "The first 50 that did not succeed" : "Did not succeed"), el("ul", { class: "failures" }, ...rows)] : []));
}

byId("jump").addEventListener("submit", (event) => {
  event.preventDefault();
  const [, group, index] = /^(.+)\/([0-9]+)$/.exec(byId("jumpto").value.trim()) ?? [];
  const there = (head.groups ?? []).find((g) => g.name === group && Number(index) < g.instances);
  if (there) choose(group, Number(index));
  else say(byId("gridsays"), "name an instance as group/index, such as " + (head.groups?.[0]?.name ?? "eu") + "/0");
});

// choose shows one instance: how it ended, and what it wrote.
async function choose(group, index) {
  const section = byId("instance");
  section.hidden = false;
  say(byId("h-instance"), `${group}/${index}`);
  byId("detail").replaceChildren();
  section.scrollIntoView({ block: "nearest" });
  section.focus({ preventScroll: true });
  logs.open(group, index);
  if (!shown) return;
  try {
    const row = await get(runPath(id, "instance"), { stage: shown, group, index });
    if (byId("h-instance").textContent === `${group}/${index}`) byId("detail").replaceChildren(...detail(row));
  } catch (error) {
    byId("detail").replaceChildren(el("p", { class: "dim" }, error.message));
  }
}

function detail(row) {
  const facts = [];
  const fact = (name, text) => { if (text) facts.push(el("dt", {}, name), el("dd", {}, text)); };
  const began = moment(row.started), until = moment(row.ended);
  fact("outcome", row.outcome + (row.reason ? ": " + row.reason : ""));
  fact("exit", row.signal ? "signal " + row.signal : String(row.exit));
  fact("ran", began && until ? `${duration((until - began) / 1000)} from ${date(began)}` : "");
  fact("used", [row.peakMemory ? bytes(row.peakMemory) : "", row.cpu ? duration(row.cpu) + " CPU" : ""].filter(Boolean).join(", "));
  fact("started", row.starts > 1 ? row.starts + " times" : "");
  fact("address", [row.host, row.data].filter(Boolean).join(", "));
  const made = [el("dl", { class: "facts" }, ...facts)];
  if (row.lastLines?.length) made.push(el("h3", {}, "Last lines"), el("pre", { class: "lines", tabIndex: 0 }, row.lastLines.join("\n")));
  return made;
}

const close = () => {
  byId("instance").hidden = true;
  logs.close();
  byId("grid").focus({ preventScroll: true });
};
byId("closeinstance").addEventListener("click", close);
byId("instance").addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
