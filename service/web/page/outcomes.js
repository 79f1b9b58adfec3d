// What became of a norm, in words.

import { el } from "./dom.js";

export const OUTCOMES = {
  into_producer: { word: "folded back", into: (partner) => `into ${partner}` },
  into_consumer: { word: "folded forward", into: (partner) => `into ${partner}` },
  merged_branch: { word: "branches merged", into: (partner) => `into ${partner}` },
  absorbed: { word: "absorbed", into: (partner) => `by ${partner}` },
  kept: { word: "kept", into: () => "" },
  unused: { word: "not called", into: () => "" },
};
export const outcomeOf = (norm) => (norm.outcome in OUTCOMES ? norm.outcome : "unused");
export const whereTo = (norm) => (norm.partner ? OUTCOMES[outcomeOf(norm)].into(norm.partner) : "");

/** The outcome as a small label. */
export function chip(norm) {
  const outcome = outcomeOf(norm);
  return el("span", { class: "chip", "data-tint": outcome }, `${OUTCOMES[outcome].word} ${whereTo(norm)}`.trim());
}
