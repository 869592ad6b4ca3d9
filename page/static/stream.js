// The one stream of a page: what moves comes by it. It is let go while nobody looks at the page, since a browser gives all
// pages of a server six connections together, and taken up where it was left.

import { byId, say } from "./elements.js";
import { greet } from "./api.js";

const unseen = 10_000; // milliseconds that a hidden page keeps its stream

export function follow(url, handlers) {
  let source, last = "", timer;
  const open = () => {
    clearTimeout(timer);
    if (source) return;
    source = new EventSource(last ? url + "?last=" + encodeURIComponent(last) : url);
    source.onopen = () => linked(true);
    source.onerror = () => {
      linked(false);
      if (source && source.readyState === EventSource.CLOSED) { // refused: the browser doesn't try again by itself
        close();
        timer = setTimeout(open, 3000);
      }
    };
    for (const [kind, handle] of Object.entries(handlers)) {
      source.addEventListener(kind, (event) => {
        if (event.lastEventId) last = event.lastEventId;
        handle(JSON.parse(event.data));
      });
    }
    if (!handlers.ready) source.addEventListener("ready", (event) => { last = event.lastEventId; });
  };
  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = undefined;
  };
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(close, unseen);
    else open();
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  open();
  temporalLink();
  setInterval(() => { if (!document.hidden) temporalLink(true); }, 30_000);
}

// temporalLink leads to Temporal's own page, which moves when another process takes the services over.
async function temporalLink(again = false) {
  const link = byId("temporal");
  try {
    const { temporal } = await greet(again);
    link.hidden = !temporal;
    if (temporal) link.href = temporal;
  } catch {
    link.hidden = true; // it will be back when the page is
  }
}

// linked shows whether what is on the page is of this moment.
function linked(up) {
  const link = byId("link");
  link.classList.toggle("away", !up);
  say(link, up ? "live" : "connecting …");
}
