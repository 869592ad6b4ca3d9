// Metrics, assertions, and the proof of the network.

import { badge, byId, el, say } from "./elements.js";
import { count, figure, value } from "./format.js";

const stats = ["count", "min", "mean", "p50", "p90", "p99", "max", "sum"];

export class Measured {
  reset() {
    this.metrics = undefined;
    this.proofs = new Map();
  }

  constructor() { this.reset(); }

  assert(assertions) {
    const box = byId("assertions");
    const key = JSON.stringify(assertions ?? []);
    if (key === this.asserted) return;
    this.asserted = key;
    const rows = (assertions ?? []).map((a) => el("tr", {}, el("td", {}, badge(a.held ? "passed" : "failed")), el("td", { class: "mono" }, a.expr), el("td", { class: "dim" }, a.explanation ?? "")));
    box.replaceChildren(...(rows.length ? [el("div", { class: "scroll" }, el("table", { class: "figures" }, el("caption", {}, "What was asserted"), el("tbody", {}, ...rows)))] : []));
    this.show();
  }

  take(message) {
    this.metrics = message.metrics;
    const names = Object.keys(this.metrics).sort();
    const head = el("tr", {}, el("th", { scope: "col" }, "Metric"), ...stats.map((s) => el("th", { class: "n", scope: "col" }, s)));
    const rows = names.map((name) => {
      const m = this.metrics[name];
      return el("tr", {}, el("th", { scope: "row", class: "mono" }, name), ...stats.map((s) => el("td", { class: "n" }, s === "count" ? figure("", m[s]) : figure(name, m[s]))));
    });
    byId("metrics").replaceChildren(...(rows.length ? [el("thead", {}, head), el("tbody", {}, ...rows)] : []));
    say(byId("metricsmore"), message.total > names.length ? `${count(message.total - names.length, "metric")} more are in the report.` : "");
    this.show();
  }

  show() {
    byId("measured").hidden = !byId("assertions").children.length && !byId("metrics").children.length;
  }

  prove(proof) {
    this.proofs.set(proof.stage, proof);
    byId("network").hidden = false;
    byId("proofs").replaceChildren(...[...this.proofs.values()].map(table));
  }
}

function table(proof) {
  const good = proof.faults === 0;
  const rows = proof.shown.map((p) => el("tr", {},
    el("th", { scope: "row", class: "mono" }, `${p.from} → ${p.to}`), el("td", {}, shape(p.asked)), el("td", {}, shape(p.achieved)),
    el("td", {}, p.ok ? badge("passed") : badge("invalid"), " ", p.fault || p.note || "")));
  return el("details", { open: !good },
    el("summary", {}, badge(good ? "passed" : "invalid"), ` Stage ${proof.stage}: `, good ? `${count(proof.pairs, "pair")} probed, all within ${proof.tolerance}` : `${proof.faults} of ${count(proof.pairs, "pair")} outside ${proof.tolerance}`, ` (shaped by ${proof.shaper})`),
    el("div", { class: "scroll" }, el("table", { class: "figures" },
      el("thead", {}, el("tr", {}, ...["Pair", "Asked", "Found", ""].map((t) => el("th", { scope: "col" }, t)))), el("tbody", {}, ...rows))));
}

// shape is what is asked of a direction, in words.
function shape(figures) {
  const parts = Object.entries(figures ?? {}).filter(([name, v]) => !(name === "policy" && v === "accept")).map(([name, v]) => `${name} ${value(v)}`);
  return parts.length ? parts.join(", ") : "–";
}
