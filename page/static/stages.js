// The stages of a run, or the cells of a matrix.

import { badge, byId, el, say } from "./elements.js";
import { duration, moment, value } from "./format.js";
import { Rows } from "./rows.js";

// From so many on, only the rows in sight are in the document.
const many = 120;

export class Stages {
  constructor() {
    this.box = byId("stages");
    this.list = [];
    this.progress = new Map();
    this.elements = [];
  }

  reset() { this.list = []; }

  take({ total, rows }) {
    this.list.length = total;
    for (const { i, row } of rows) this.list[i] = { ...row };
  }

  // advance takes the newest word of the stages under way.
  advance(reports) {
    this.progress = new Map((reports ?? []).map((p) => [p.stage, p]));
  }

  draw() {
    if (this.list.length > many) {
      this.rows ??= this.virtual();
      this.rows.set(this.list);
      this.rows.refresh();
      return;
    }
    while (this.elements.length > this.list.length) this.elements.pop().remove();
    this.list.forEach((stage, i) => {
      if (!stage) return;
      if (!this.elements[i]) {
        this.elements[i] = this.make();
        this.elements[i].setAttribute("role", "listitem");
        this.box.append(this.elements[i]);
      }
      this.fill(this.elements[i], stage);
    });
  }

  virtual() {
    for (const e of this.elements) e.remove();
    this.elements = [];
    this.box.classList.add("rows");
    return new Rows(this.box, () => this.make(), (e, s) => { if (s) this.fill(e, s); });
  }

  make() {
    const parts = {
      name: el("span", { class: "name" }), kind: el("span", { class: "kind" }), badge: el("span", { class: "badgecell" }),
      took: el("span", { class: "n" }), says: el("span", { class: "says" }),
    };
    const row = el("div", { class: "stage" }, ...Object.values(parts));
    row.parts = parts;
    return row;
  }

  fill(row, stage) {
    const { parts } = row;
    if (stage.run) {
      if (row.run !== stage.run) {
        row.run = stage.run;
        parts.name.replaceChildren(el("a", { class: "mono", href: "/runs/" + encodeURIComponent(stage.run) }, stage.name));
      }
    } else {
      say(parts.name, stage.name);
    }
    say(parts.kind, stage.kind ?? "");
    const word = stage.verdict || stage.phase;
    const tries = stage.attempt > 1 ? `, try ${stage.attempt}` : "";
    if (row.word !== word + tries) {
      row.word = word + tries;
      parts.badge.replaceChildren(badge(word === "backoff" ? "waits" : word), tries);
    }
    const began = moment(stage.started);
    const until = moment(stage.ended) ?? (stage.phase === "running" ? Date.now() : undefined);
    say(parts.took, began !== undefined && until !== undefined ? duration((until - began) / 1000) : "");
    this.comment(row, stage);
  }

  // comment says what a stage is at, or why it ended as it did.
  comment(row, stage) {
    const { says } = row.parts;
    const report = stage.phase === "running" ? this.progress.get(stage.name) : undefined;
    if (!report) {
      const text = [stage.values ? Object.entries(stage.values).map(([k, v]) => `${k}=${value(v)}`).join(" ") : "", stage.reason ?? "", stage.note ?? ""].filter(Boolean).join(" · ");
      if (row.bar) { row.bar = undefined; says.replaceChildren(); }
      return say(says, text);
    }
    const done = (report.succeeded ?? 0) + (report.failed ?? 0) + (report.killed ?? 0);
    const come = stage.kind === "schedule" ? report.placed ?? 0 : done;
    if (!row.bar) {
      row.bar = { bar: el("progress", { "aria-label": "how far the stage is" }), text: el("span") };
      says.replaceChildren(row.bar.bar, row.bar.text);
    }
    row.bar.bar.hidden = !report.total;
    row.bar.bar.max = report.total || 1;
    row.bar.bar.value = come;
    say(row.bar.text, said(report, come));
  }
}

function said(report, come) {
  const parts = [];
  if (report.total) parts.push(`${come.toLocaleString("en")} of ${report.total.toLocaleString("en")}`);
  for (const [name, word] of [["running", "running"], ["waiting", "waiting"], ["failed", "did not succeed"], ["killed", "killed"]]) {
    if (report[name]) parts.push(`${report[name].toLocaleString("en")} ${word}`);
  }
  if (report.note) parts.push(report.note);
  if (report.firstFailure) parts.push("first failure " + report.firstFailure);
  return parts.join(" · ");
}
