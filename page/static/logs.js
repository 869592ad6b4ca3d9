// What an instance wrote: the end of a file first, what is before it on the way up, and what comes as it comes.

import { byId, el, options, say } from "./elements.js";
import { get, runPath } from "./api.js";
import { bytes, clock } from "./format.js";

const most = 48; // parts that are kept

export class Logs {
  constructor(run) {
    this.run = run;
    this.pre = byId("log");
    this.files = byId("logfile");
    this.readable = byId("readable");
    this.parts = [];
    this.turn = 0; // grows with every file that is opened: answers to earlier questions are void
    this.pre.addEventListener("scroll", () => { if (this.pre.scrollTop < 150) this.back(); }, { passive: true });
    this.files.addEventListener("change", () => this.begin());
    this.readable.addEventListener("change", () => this.redraw());
    byId("follow").addEventListener("change", () => this.forth());
    setInterval(() => this.forth(), 1000);
  }

  // open shows an instance's files.
  async open(group, index) {
    this.instance = { group, index };
    this.turn++;
    this.clear();
    options(this.files, []);
    await this.list();
  }

  close() {
    this.instance = undefined;
    this.turn++;
  }

  async list() {
    const { turn } = this;
    try {
      const { files, more } = await get(runPath(this.run, "files"), this.instance);
      if (turn !== this.turn) return;
      const sizes = new Map(files.map((f) => [f.name, f.size]));
      options(this.files, files.map((f) => f.name), (name) => `${name} (${bytes(sizes.get(name))})`);
      const preferred = ["run.out", "stdout.log", "run.err"].find((name) => sizes.get(name) > 0) ?? files[0]?.name;
      if (preferred) this.files.value = preferred;
      say(byId("logsays"), more ? "more files than are listed here" : files.length ? "" : "nothing is written yet");
      if (preferred) await this.begin();
    } catch (error) {
      if (turn === this.turn) say(byId("logsays"), error.message + ". Outputs of instances on a cluster come to this machine when they are gathered.");
    }
  }

  clear() {
    this.parts = [];
    this.pre.replaceChildren();
    this.from = this.to = undefined;
  }

  async begin() {
    this.turn++;
    this.clear();
    const part = await this.ask({});
    if (!part) return;
    [this.from, this.to] = [part.from, part.to];
    this.show(part, false);
    this.pre.scrollTop = this.pre.scrollHeight;
  }

  // back reads what is before the first part, and keeps what is in sight where it is.
  async back() {
    if (!this.from || this.asking) return;
    const part = await this.ask({ before: this.from });
    if (!part) return;
    if (part.from >= this.from) return;
    this.from = part.from;
    const rest = this.pre.scrollHeight - this.pre.scrollTop;
    this.show(part, true);
    this.pre.scrollTop = this.pre.scrollHeight - rest;
  }

  // forth reads what has come.
  async forth() {
    if (!this.instance || document.hidden || this.asking || !byId("follow").checked) return;
    if (!this.files.options.length) return this.list();
    if (this.to === undefined) return;
    const part = await this.ask({ after: this.to });
    if (!part) return;
    if (part.size < this.to) return this.begin(); // it was cut, or written anew
    if (part.to === this.to) return;
    this.to = part.to;
    const low = this.pre.scrollHeight - this.pre.scrollTop - this.pre.clientHeight < 40;
    this.show(part, false);
    if (low) this.pre.scrollTop = this.pre.scrollHeight;
  }

  async ask(where) {
    const { turn } = this;
    this.asking = true;
    try {
      const part = await get(runPath(this.run, "log"), { ...this.instance, file: this.files.value, ...where });
      return turn === this.turn ? part : undefined;
    } catch (error) {
      if (turn === this.turn) say(byId("logsays"), error.message);
      return undefined;
    } finally {
      this.asking = false;
    }
  }

  show(part, first) {
    const made = el("span");
    made.raw = part.binary ? `[${bytes(part.to - part.from)} that are no text]\n` : part.text;
    made.append(this.text(made.raw));
    if (first) {
      this.pre.prepend(made);
      this.parts.unshift(made);
      if (this.parts.length > most) this.parts.pop().remove();
    } else {
      this.pre.append(made);
      this.parts.push(made);
      if (this.parts.length > most) {
        this.from += new TextEncoder().encode(this.parts[0].raw).length;
        this.parts.shift().remove();
      }
    }
    say(byId("logsays"), this.from > 0 ? "earlier lines are read on the way up" : "from the beginning");
  }

  redraw() {
    for (const part of this.parts) part.textContent = this.text(part.raw);
  }

  text(raw) {
    return this.readable.checked ? raw.split("\n").map(readable).join("\n") : raw;
  }
}

// readable is what a line of the SDKs says to a person; every other line stays as it is.
function readable(line) {
  if (!line.startsWith('{"') || !line.includes('"event":{')) return line;
  let parsed;
  try {
    parsed = JSON.parse(line);
  } catch {
    return line;
  }
  const e = parsed.event ?? {};
  const text = e.start_event ? "started"
    : e.message_event ? e.message_event.message
    : e.success_event ? "success"
    : e.failure_event ? "failure: " + e.failure_event.error
    : e.crash_event ? ("crash: " + e.crash_event.error + "\n" + (e.crash_event.stacktrace ?? "")).trim()
    : e.stage_start_event ? "begins: " + e.stage_start_event.name
    : e.stage_end_event ? "ends: " + e.stage_end_event.name
    : undefined;
  return text === undefined ? line : clock(parsed.ts / 1e6) + " " + text;
}
