// Questions before something is destroyed.

import { byId, say } from "./elements.js";

// sure asks, and says whether the answer was yes. Esc and the first button, which has the focus, are a no.
export function sure(question, yes) {
  const dialog = byId("confirm");
  say(byId("question"), question);
  say(byId("yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  byId("no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
