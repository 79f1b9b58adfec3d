// Drift: what the live rows of a version come to, in words and on two meters.

import { counted, el, number, score, term } from "./dom.js";

// Only a baseline knows of texture.
const PARTS = ["input", "texture", "content"];

/** The state of a version's live rows; nothing where nobody looks at them. */
export function showDrift(place, report) {
  place.hidden = !report;
  const children = report ? sentences(report) : [];
  const said = children.map((child) => child.textContent).join("\n");
  if (said === place.dataset.said) return; // so that an opened meaning keeps its button
  place.dataset.said = said;
  place.replaceChildren(...children);
}

function sentences(report) {
  const { state, meaning, scores } = report;
  return [
    el("p", {}, term("drift", "Live rows"), ": ", el("strong", { class: "state", "data-state": state }, state), " ", el("span", { class: "quiet" }, meaning)),
    scores ? el("dl", { class: "meters" }, PARTS.filter((part) => part !== "texture" || (scores.texture ?? null) !== null).map((part) => meter(part, report))) : null,
    state === "off" || state === "failed" ? null : el("p", { class: "quiet small" }, seen(report)),
  ].filter((child) => child !== null);
}

/** How many rows that rests on. */
function seen({ reference, baseline_rows, collected, contrary, n, n_eff }) {
  if (!n) return `${counted(collected, "row")} looked at so far`;
  const against = reference === "baseline" ? `the baseline of ${counted(baseline_rows, "row")}` : "the frozen statistics";
  const otherwise = contrary ? `; ${counted(contrary, "window")} in a row said otherwise, and three change the state` : "";
  return `${counted(n, "row")}, worth ${number(n_eff, 3)} independent ones, against ${against}${otherwise}`;
}

/** A part's score on a track that ends at twice its threshold. */
function meter(part, { scores, thresholds }) {
  const [value, threshold] = [scores[part], thresholds?.[part] ?? null];
  const bar = el("span", { class: "meter", "aria-hidden": "true", "data-tint": nearness(value, threshold) }, el("span"));
  if (value !== null && threshold) bar.firstChild.style.inlineSize = `${Math.min(100, Math.max(0, (50 * value) / threshold))}%`;
  return el("div", {}, el("dt", {}, part), el("dd", {}, bar, el("span", { class: "number" }, score(value, threshold))));
}

/** Whether a score lies above its threshold, near it (70 %, where an alarm ends) or below. */
export function nearness(value, threshold) {
  if (value === null || value === undefined || !threshold) return "unknown";
  if (value > threshold) return "drift-over";
  return value > 0.7 * threshold ? "drift-near" : "drift-under";
}
