// A list of any length, of which only the rows that are in sight are in the document.

import { painter } from "./elements.js";

const spare = 8; // rows above and below what is in sight

export class Rows {
  // make gives an element for a row; fill shows an item in it.
  constructor(box, make, fill) {
    this.box = box;
    this.make = make;
    this.fill = fill;
    this.items = [];
    this.height = 0;
    this.shown = new Map(); // place → element
    this.idle = [];
    this.paint = painter(() => this.draw());
    window.addEventListener("scroll", this.paint, { passive: true });
    new ResizeObserver(() => { this.height = 0; this.paint(); }).observe(document.documentElement);
  }

  // set gives the list new items; those that are the same objects as before are not drawn again.
  set(items) {
    this.items = items;
    this.paint();
  }

  // refresh draws again what is in sight, since time has passed.
  refresh() {
    for (const element of this.shown.values()) element.item = undefined;
    this.paint();
  }

  measure() {
    const probe = this.element();
    probe.style.visibility = "hidden";
    this.box.append(probe);
    this.height = probe.offsetHeight || 40;
    this.release(probe);
    probe.style.visibility = "";
  }

  element() {
    const element = this.idle.pop() ?? this.make();
    element.setAttribute("role", "listitem");
    return element;
  }

  release(element) {
    element.item = undefined;
    element.remove();
    this.idle.push(element);
  }

  draw() {
    if (!this.height) this.measure();
    const { items, height, shown } = this;
    const total = items.length * height + "px";
    if (this.box.style.height !== total) this.box.style.height = total;
    const top = this.box.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / height) - spare);
    const end = Math.min(items.length, Math.ceil((window.innerHeight - top) / height) + spare);
    for (const [place, element] of shown) {
      if (place < first || place >= end) {
        shown.delete(place);
        this.release(element);
      }
    }
    const fresh = document.createDocumentFragment();
    for (let place = first; place < end; place++) {
      let element = shown.get(place);
      if (!element) {
        element = this.element();
        shown.set(place, element);
        fresh.append(element);
      }
      if (element.item !== items[place]) {
        element.item = items[place];
        this.fill(element, items[place]);
      }
      element.setAttribute("aria-posinset", place + 1);
      element.setAttribute("aria-setsize", items.length);
      const at = `translateY(${place * height}px)`;
      if (element.style.transform !== at) element.style.transform = at;
    }
    this.box.append(fresh);
  }
}
