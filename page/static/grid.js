// The instances of a run, one small square each, on one canvas: it costs the same to scroll however many there are.

import { byId, el, painter, say } from "./elements.js";

export const outcomes = { s: "succeeded", f: "failed", c: "crashed", i: "silent", k: "killed", ".": "not ended", "?": "of unknown outcome" };

const heading = 20; // height of a group's name, in pixels
const gap = 10;

export class Grid {
  // choose is called with the group and index of the instance that a person wants to see.
  constructor(choose) {
    this.canvas = byId("grid");
    this.box = byId("gridbox");
    this.says = byId("gridsays");
    this.choose = choose;
    this.groups = [];
    this.letters = []; // per group: an array of letters
    this.at = undefined; // where the keyboard is: [group, index]
    this.fresh = [];
    this.anew = true;
    this.paint = painter(() => this.draw());
    this.cursor = el("div", { class: "cursor", hidden: true });
    this.box.append(this.cursor);
    new ResizeObserver(() => this.redraw()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    this.canvas.addEventListener("pointermove", (e) => this.hover(this.find(e)));
    this.canvas.addEventListener("click", (e) => this.pick(this.find(e)));
    this.canvas.addEventListener("keydown", (e) => this.key(e));
    this.canvas.addEventListener("focus", () => { if (!this.at && this.groups.length) this.move([0, 0]); else this.mark(); });
    this.canvas.addEventListener("blur", () => { this.cursor.hidden = true; });
  }

  place(groups) {
    if (JSON.stringify(groups) === JSON.stringify(this.groups)) return;
    this.groups = groups;
    this.clear();
  }

  // clear forgets every outcome.
  clear() {
    this.letters = this.groups.map((g) => new Array(Math.max(g.instances, 0)).fill("."));
    this.redraw();
  }

  // whole takes all outcomes of a stage: a string of letters per group.
  whole(strings) {
    this.clear();
    strings.forEach((text, g) => { if (this.letters[g]) this.letters[g] = [...text]; });
  }

  // add takes outcomes that are new: group, index and letter in turns.
  add(list) {
    for (let i = 0; i + 2 < list.length; i += 3) {
      const group = this.letters[list[i]];
      if (!group || list[i + 1] >= group.length) continue;
      group[list[i + 1]] = list[i + 2];
      this.fresh.push([list[i], list[i + 1]]);
    }
    this.paint();
  }

  redraw() {
    this.anew = true;
    this.paint();
  }

  counts() {
    return this.letters.map((group) => {
      const sums = {};
      for (const letter of group) sums[letter] = (sums[letter] ?? 0) + 1;
      return sums;
    });
  }

  // layout works out where everything is.
  layout() {
    const total = this.groups.reduce((sum, g) => sum + g.instances, 0);
    this.cell = [[400, 16], [2000, 12], [5000, 9], [20000, 7], [60000, 5]].find(([most]) => total <= most)?.[1] ?? 3;
    this.width = Math.max(this.box.clientWidth, 60);
    this.across = Math.max(Math.floor(this.width / this.cell), 1);
    let top = 0;
    this.tops = this.groups.map((g) => {
      const at = top + heading;
      top = at + Math.ceil(g.instances / this.across) * this.cell + gap;
      return at;
    });
    this.height = Math.max(top, 1);
  }

  draw() {
    if (!this.groups.length) return;
    const context = this.canvas.getContext("2d");
    if (this.anew) {
      this.layout();
      const scale = window.devicePixelRatio || 1;
      this.canvas.width = Math.round(this.width * scale);
      this.canvas.height = Math.round(this.height * scale);
      this.canvas.style.height = this.height + "px";
      context.setTransform(scale, 0, 0, scale, 0, 0);
      this.colours();
      context.clearRect(0, 0, this.width, this.height);
      context.font = "500 12px " + getComputedStyle(document.body).fontFamily;
      context.textBaseline = "bottom";
      context.fillStyle = this.colour.dim;
      this.groups.forEach((g, i) => context.fillText(`${g.name} · ${g.instances.toLocaleString("en")}`, 0, this.tops[i] - 3, this.width));
      this.letters.forEach((group, g) => group.forEach((letter, i) => this.square(context, g, i, letter)));
    } else {
      for (const [g, i] of this.fresh) this.square(context, g, i, this.letters[g][i]);
    }
    this.anew = false;
    this.fresh = [];
    this.mark();
  }

  colours() {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue("--" + name).trim();
    this.colour = { s: get("passed"), f: get("failed"), c: get("failed"), i: get("invalid"), k: get("strong-line"), "?": get("strong-line"), ".": get("line"), paper: get("paper"), dim: get("dim") };
  }

  // square draws one instance. What did not succeed is larger and has another shape, so that it shows without its colour.
  square(context, g, i, letter) {
    const [x, y] = this.corner(g, i);
    const size = this.cell - 1;
    context.fillStyle = this.colour.paper;
    context.fillRect(x, y, this.cell, this.cell);
    context.fillStyle = this.colour[letter] ?? this.colour["?"];
    const inset = letter === "s" ? Math.floor(size * 0.15) : letter === "." ? Math.floor(size * 0.25) : 0;
    context.fillRect(x + inset, y + inset, size - 2 * inset, size - 2 * inset);
    const rim = Math.max(1, Math.round(size * 0.2));
    if (letter === "i" || letter === "k" || letter === "?") this.hole(context, x, y, size, rim);
    if (letter === "c" && size >= 5) this.hole(context, x, y, size, Math.round(size * 0.33));
    if (letter === "f" && size >= 8) {
      context.strokeStyle = this.colour.paper;
      context.lineWidth = 1.3;
      context.beginPath();
      context.moveTo(x + 2.5, y + 2.5);
      context.lineTo(x + size - 2.5, y + size - 2.5);
      context.moveTo(x + size - 2.5, y + 2.5);
      context.lineTo(x + 2.5, y + size - 2.5);
      context.stroke();
    }
  }

  hole(context, x, y, size, rim) {
    context.fillStyle = this.colour.paper;
    context.fillRect(x + rim, y + rim, size - 2 * rim, size - 2 * rim);
  }

  corner(g, i) {
    return [(i % this.across) * this.cell, this.tops[g] + Math.floor(i / this.across) * this.cell];
  }

  // find is the instance under the pointer.
  find(event) {
    const x = Math.floor(event.offsetX / this.cell);
    if (!this.tops || x < 0 || x >= this.across) return undefined;
    for (let g = this.groups.length - 1; g >= 0; g--) {
      if (event.offsetY < this.tops[g]) continue;
      const i = Math.floor((event.offsetY - this.tops[g]) / this.cell) * this.across + x;
      return i < this.groups[g].instances ? [g, i] : undefined;
    }
    return undefined;
  }

  name([g, i]) {
    const letter = this.letters[g][i];
    return `${this.groups[g].name}/${i}: ${outcomes[letter] ?? outcomes["?"]}`;
  }

  hover(at) { say(this.says, at ? this.name(at) : ""); }

  pick(at) {
    if (!at) return;
    this.move(at);
    this.choose(this.groups[at[0]].name, at[1]);
  }

  move(at) {
    this.at = at;
    this.hover(at);
    this.mark();
  }

  // mark shows where the keyboard is.
  mark() {
    const seen = this.at && this.tops && document.activeElement === this.canvas && this.at[0] < this.groups.length;
    this.cursor.hidden = !seen;
    if (!seen) return;
    const [x, y] = this.corner(...this.at);
    this.cursor.style.transform = `translate(${x - 3}px, ${y - 3}px)`;
    this.cursor.style.width = this.cursor.style.height = this.cell + 5 + "px";
  }

  key(event) {
    if (!this.groups.length) return;
    let [g, i] = this.at ?? [0, 0];
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.across, ArrowUp: -this.across };
    if (event.key in steps) {
      i += steps[event.key];
      if (i >= this.groups[g].instances && g + 1 < this.groups.length) [g, i] = [g + 1, 0];
      else if (i < 0 && g > 0) [g, i] = [g - 1, this.groups[g - 1].instances - 1];
      i = Math.min(Math.max(i, 0), this.groups[g].instances - 1);
    } else if (event.key === "Home") [g, i] = [0, 0];
    else if (event.key === "End") [g, i] = [this.groups.length - 1, this.groups.at(-1).instances - 1];
    else if (event.key === "n") [g, i] = this.nextFailure([g, i]);
    else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return this.pick([g, i]);
    } else return;
    event.preventDefault();
    this.move([g, i]);
  }

  // nextFailure is the next instance that did not succeed, going round.
  nextFailure([g, i]) {
    const flat = [];
    this.letters.forEach((group, at) => group.forEach((letter, index) => { if ("fci".includes(letter)) flat.push([at, index]); }));
    return flat.find(([a, b]) => a > g || (a === g && b > i)) ?? flat[0] ?? [g, i];
  }
}
