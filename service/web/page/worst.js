// The worst: the channels of a norm that lie farthest from its reference, as a table in which one may be chosen.

import { el, number, term } from "./dom.js";

const HEADS = { delta: "mean δ", lambda: "variance λ", z: "z" };

/** A line for each of `found`, with the quantities that it has; `pick` is told of the channel that is chosen. */
export function worst(found, chosen, pick) {
  const names = Object.keys(HEADS).filter((name) => found.some((one) => name in one));
  const opener = ({ channel }) => el("button", { type: "button", class: "link", onclick: () => pick(channel) }, String(channel));
  const row = (one) => el("tr", { "data-open": one.channel === chosen ? "" : null }, el("th", { scope: "row" }, opener(one)), names.map((name) => el("td", { class: "number right" }, number(one[name], 3))));
  return el(
    "table",
    { class: "worst" },
    el("caption", {}, "The channels that moved most"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "channel"), names.map((name) => el("th", { scope: "col", class: "right" }, term(`drift_${name}`, HEADS[name]))))),
    el("tbody", {}, found.map(row)),
  );
}
