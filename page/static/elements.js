// Elements of the document. Whatever is shown is text: nothing here, or anywhere on the page, makes markup of a string.

export const byId = (id) => document.getElementById(id);

// el makes an element with properties, and children that are elements or become text.
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") made.className = value;
    else if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((c) => c !== undefined && c !== null && c !== ""));
  return made;
}

// say puts a text where another one is: a screen reader hears it once.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// show says a text, and hides the element when there is none.
export function show(element, text) {
  say(element, text ?? "");
  element.hidden = !text;
}

// badge is a verdict, or a status: its colour, its sign and its word. A word that is neither is only said.
export function badge(word) {
  if (!words.has(word)) return el("span", { class: "dim" }, word);
  return el("span", { class: "badge " + known(word) }, word);
}

const words = new Set(["passed", "failed", "invalid", "cancelled", "skipped", "running", "holding"]);

// known is the class of a word; a word that nobody knows has none.
export const known = (word) => (words.has(word) ? word : "");

// options fills a select, and keeps what is chosen where it is still there.
export function options(select, values, label = (v) => v, fixed = 0) {
  const now = [...select.options].slice(fixed).map((o) => o.value);
  if (now.length === values.length && now.every((v, i) => v === values[i])) return;
  const chosen = select.value;
  while (select.options.length > fixed) select.remove(fixed);
  for (const v of values) select.add(new Option(label(v), v));
  if ([...select.options].some((o) => o.value === chosen)) select.value = chosen;
}

// painter calls paint before the next frame, once however often it is asked.
export function painter(paint) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; paint(); });
  };
}
