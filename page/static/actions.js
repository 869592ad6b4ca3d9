// What can be done with a run.

import { byId, el, show } from "./elements.js";
import { post, runPath } from "./api.js";
import { sure } from "./confirm.js";
import { date, moment } from "./format.js";

let drawn = "";

// offer shows the buttons that fit where the run stands.
export function offer(head, stages) {
  const open = stages.filter((s) => s && s.verdict && s.verdict !== "passed").length > 0;
  const busy = stages.some((s) => s && (s.phase === "running" || s.phase === "backoff"));
  const key = JSON.stringify([head.id, head.status, head.verdict, head.holding, open, busy, head.matrix, stages.length]);
  if (key === drawn) return;
  drawn = key;
  const box = byId("actions");
  const had = box.contains(document.activeElement) || byId("hold").contains(document.activeElement);
  box.replaceChildren(...buttons(head, stages, busy));
  hold(head);
  if (had) (box.querySelector("button, a") ?? byId("content")).focus();
}

function buttons(head, stages, busy) {
  const made = [];
  if (head.status === "running" || (head.status === "holding" && busy)) made.push(cancelButton(head));
  if (head.status === "ended") made.push(...resume(head, stages));
  if (head.status !== "gone") {
    made.push(el("a", { class: "button", href: `/runs/${encodeURIComponent(head.id)}/report.html` }, "Report"));
  }
  return made;
}

function cancelButton(head) {
  return button("Cancel", "danger", async () => {
    if (await sure(`End the run ${head.id}? Its instances, its placement and its network go.`, "Yes, end it")) {
      await wish(head.id, "cancel", {}, "The run was asked to end.");
    }
  });
}

// resume goes on with what did not pass, or from a stage that is named.
function resume(head, stages) {
  const from = el("select", { "aria-label": "Stage to begin with" });
  if (head.verdict !== "passed") from.add(new Option("from what did not pass", ""));
  if (!head.matrix) for (const s of stages.slice(0, 1000)) if (s) from.add(new Option("from " + s.name, s.name));
  if (!from.options.length) return [];
  return [button("Resume", head.verdict === "passed" ? "" : "main", () => wish(head.id, "resume", { from: from.value }, "The run goes on.")), from];
}

function hold(head) {
  const box = byId("hold");
  box.hidden = head.status !== "holding" || !head.holding;
  if (box.hidden) return box.replaceChildren();
  const { stage, reason, until } = head.holding;
  const decide = (action, said) => wish(head.id, "decide", { action, stage }, said);
  box.replaceChildren(
    el("p", {}, `Stage ${stage} did not pass, and its placement is kept until ${date(moment(until))}: ${reason}`),
    el("div", { class: "actions" },
      button("Run the stage again", "main", () => decide("retry", `Stage ${stage} runs again.`)),
      button("Skip it", "", () => decide("skip", `Stage ${stage} is taken as it ended.`)),
      button("Abort the run", "danger", async () => {
        if (await sure(`End the run ${head.id} with the verdict that it has? The placement that is kept goes.`, "Yes, end it")) {
          await decide("abort", "The run ends.");
        }
      })));
}

function button(text, kind, act) {
  const made = el("button", { type: "button", class: kind }, text);
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      await act();
    } finally {
      made.disabled = false;
    }
  });
  return made;
}

async function wish(id, what, body, said) {
  try {
    await post(runPath(id, what), body);
    show(byId("done"), said);
  } catch (error) {
    show(byId("done"), "That was refused: " + error.message);
  }
}
