// The table: what each norm of one model knows.

import { address } from "./address.js";
import { NAMES, VECTORS, el, momentum, number, term } from "./dom.js";
import { gravest } from "./flags.js";
import { chip } from "./outcomes.js";
import { extent, range } from "./plots.js";

/** The table; ranges of one column share one axis, so that norms can be compared down the column. */
export function showTable(place, key, norms) {
  const axes = Object.fromEntries(VECTORS.map((name) => [name, extent(norms.flatMap((norm) => (norm[name] ? [norm[name].min, norm[name].max] : [])))]));
  const head = [
    el("th", { scope: "col" }, "norm"),
    el("th", { scope: "col", class: "right" }, term("num_features")),
    ...["eps", "momentum"].map((name) => el("th", { scope: "col", class: "right" }, term(name))),
    el("th", { scope: "col", class: "right" }, term("num_batches_tracked", "batches")),
    ...VECTORS.map((name) => el("th", { scope: "col" }, term(name))),
    el("th", { scope: "col" }, "outcome"),
  ];
  const table = el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, norms.map((norm) => row(key, norm, axes))));
  place.replaceChildren(el("div", { class: "scroll card", role: "region", tabindex: "0", "aria-labelledby": "table-title" }, table));
}

function row(key, norm, axes) {
  const cell = (text) => el("td", { class: "number right" }, text);
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, el("a", { href: address(key, norm.name), "data-norm": norm.name, "data-from": "table" }, norm.name)),
    cell(norm.num_features),
    cell(number(norm.eps)),
    cell(momentum(norm)),
    cell(norm.num_batches_tracked === null ? "–" : norm.num_batches_tracked.toLocaleString("en")),
    VECTORS.map((name) => el("td", {}, norm[name] ? [range(norm[name], axes[name]), bounds(norm[name])] : el("span", { class: "quiet" }, none(name)))),
    el("td", { class: "outcome" }, chip(norm), flagged(norm), norm.reason ? el("small", {}, norm.reason) : null),
  );
}

const none = (name) => `no ${NAMES[name]}`;
const bounds = ({ min, max }) => el("span", { class: "number bounds" }, el("span", {}, number(min, 3)), el("span", { class: "unseen" }, " to "), el("span", {}, number(max, 3)));

/** A small label with the number of flags and the gravest level. */
function flagged({ flags, ...norm }) {
  if (!flags.length) return null;
  const level = gravest({ ...norm, flags });
  const words = flags.length === 1 ? level : `${flags.length} flags, ${level}`;
  return [" ", el("span", { class: "chip", "data-tint": `flag-${level}`, title: flags.map(({ message }) => message).join("; ") }, words)];
}
