// The run's events, as they happen.

import { byId, el } from "./elements.js";
import { clock, date, moment } from "./format.js";

const most = 1000;

export class Events {
  constructor() {
    this.box = byId("events");
    this.next = 0;
  }

  reset() {
    this.next = 0;
    this.box.replaceChildren();
  }

  take({ from, events }) {
    const fresh = (events ?? []).slice(Math.max(this.next - from, 0));
    if (from === 0 && this.next > (events ?? []).length) this.reset(); // the log begins anew
    if (!fresh.length) return;
    this.next = from + events.length;
    const low = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40;
    this.box.append(...fresh.map(line));
    while (this.box.children.length > most) this.box.firstChild.remove();
    if (low) this.box.scrollTop = this.box.scrollHeight;
  }
}

function line(event) {
  const at = moment(event.time);
  const bad = /failed|invalid|lost|refused/.test(event.kind) || / ended: (failed|invalid)/.test(event.text);
  return el("div", {}, el("time", { title: date(at), dateTime: event.time ?? "" }, clock(at)), el("span", { class: bad ? "bad" : "" }, event.text));
}
