// The norms of one model: the strip in network order, the legend and the table.

import { address } from "./models.js";
import { NAMES, VECTORS, el, number, term } from "./dom.js";
import { extent, range } from "./plots.js";

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

const MANY = 16;

/** The strip: one piece per norm; past a few, small ones whose height tells the number of channels. */
export function showStrip(place, key, norms) {
  const many = norms.length > MANY;
  const list = el("ol", { class: many ? "strip many" : "strip" }, norms.map((norm) => el("li", {}, piece(key, norm, many))));
  list.addEventListener("keydown", (event) => walk(event, [...list.querySelectorAll("a")]));
  place.replaceChildren(norms.length ? list : el("p", { class: "quiet" }, "This network has no BatchNorm."));
}

function piece(key, norm, many) {
  const outcome = outcomeOf(norm);
  const described = `${norm.name}, ${OUTCOMES[outcome].word} ${whereTo(norm)}, ${norm.num_features} channels`;
  const link = el(
    "a",
    { class: "piece", href: address(key, norm.name), "data-outcome": outcome, "data-norm": norm.name, "aria-label": described, title: many ? described : null },
    many ? null : [el("strong", {}, norm.name), el("span", {}, whereTo(norm) || OUTCOMES[outcome].word), el("small", {}, `${norm.num_features} channels`)],
  );
  if (many) link.style.blockSize = `${12 + 5 * Math.max(0, Math.log2(norm.num_features / 8))}px`;
  return link;
}

/** Arrow keys go through the strip, which is one stop of the Tab key. */
function walk(event, links) {
  const at = links.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: links.length - 1 }[event.key];
  if (to === undefined || !links[to]) return;
  event.preventDefault();
  links[to].focus();
}

/** Says which norm is open, to eyes and to readers. */
export function mark(name) {
  for (const link of document.querySelectorAll("[data-norm]")) {
    link.toggleAttribute("data-open", link.dataset.norm === name);
    if (link.dataset.norm === name) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  const pieces = [...document.querySelectorAll(".piece")];
  const open = pieces.find((link) => link.dataset.norm === name) ?? pieces[0];
  for (const link of pieces) link.tabIndex = link === open ? 0 : -1;
}

export function showLegend(place, norms) {
  const counts = Object.keys(OUTCOMES).map((outcome) => [outcome, norms.filter((norm) => outcomeOf(norm) === outcome).length]);
  place.replaceChildren(
    ...counts.filter(([, count]) => count).map(([outcome, count]) => el("li", { "data-outcome": outcome }, el("strong", {}, String(count)), ` ${OUTCOMES[outcome].word}`)),
  );
}

/** The table; ranges of one column share one axis, so that norms can be compared down the column. */
export function showTable(place, key, norms) {
  const axes = Object.fromEntries(VECTORS.map((name) => [name, extent(norms.flatMap((norm) => (norm[name] ? [norm[name].min, norm[name].max] : [])))]));
  const head = [
    el("th", { scope: "col" }, "norm"),
    el("th", { scope: "col", class: "right" }, "channels"),
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
    el("td", { class: "outcome" }, chip(norm), norm.reason ? el("small", {}, norm.reason) : null),
  );
}

export const momentum = (norm) => {
  if (norm.momentum !== null) return number(norm.momentum);
  return norm.num_batches_tracked === null ? "–" : "average"; // an average counts its batches
};
const none = (name) => `no ${NAMES[name]}`;
const bounds = ({ min, max }) => el("span", { class: "number bounds" }, el("span", {}, number(min, 3)), el("span", { class: "unseen" }, " to "), el("span", {}, number(max, 3)));

export function chip(norm) {
  const outcome = outcomeOf(norm);
  return el("span", { class: "chip", "data-outcome": outcome }, `${OUTCOMES[outcome].word} ${whereTo(norm)}`.trim());
}
