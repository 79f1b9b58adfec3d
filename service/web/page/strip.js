// The strip: all norms of one model in network order, coloured by what the reader chose.

import { address } from "./address.js";
import { COLOURINGS, describe, telling } from "./colourings.js";
import { el, number, term } from "./dom.js";
import { OUTCOMES, outcomeOf } from "./outcomes.js";

export const MANY = 16; // from here on pieces are small, and their height tells the number of channels

export class Strip {
  // What is shown: a version, its norms, its drift and the image tried on it, and the colouring that the reader chose, or null.
  #shown = { key: null, norms: [], drift: null, sample: null };
  #chosen = null;

  constructor(places) {
    this.places = places;
    places.colouring.addEventListener("change", () => {
      this.#chosen = places.colouring.value;
      this.#colour();
    });
    places.strip.addEventListener("keydown", walk);
    places.legend.addEventListener("click", (event) => find(places.strip, event.target.closest("[data-find]")?.dataset.find));
  }

  show(key, norms) {
    this.#shown = { key, norms, drift: null, sample: null };
    const many = norms.length > MANY;
    const list = el("ol", { class: many ? "strip many" : "strip" }, norms.map((norm) => el("li", {}, piece(key, norm, many))));
    this.places.strip.replaceChildren(norms.length ? list : el("p", { class: "quiet" }, "This network has no BatchNorm."));
    this.#colour();
  }

  /** Live rows have come to something else. */
  drift(report) {
    this.#see("drift", report);
  }

  /** An image was tried, or none is any more. */
  sample(report) {
    this.#see("sample", report);
  }

  /** Colours by what the reader asked for elsewhere. */
  choose(name) {
    this.#chosen = name;
    this.#colour();
    this.places.colouring.focus();
  }

  clear(words) {
    this.#shown = { key: null, norms: [], drift: null, sample: null };
    this.places.strip.replaceChildren(el("p", { class: "quiet" }, words));
    this.places.legend.replaceChildren();
    this.places.choice.hidden = true;
  }

  #see(what, report) {
    const [before, appeared] = [this.#colouring, Boolean(report) !== Boolean(this.#shown[what])];
    this.#shown[what] = report;
    if (appeared || this.#colouring !== before || before === what) this.#colour();
  }

  /** Drift and a tried image can be chosen only while there is one. */
  #isThere(name) {
    return !(name in this.#shown) || Boolean(this.#shown[name]);
  }

  get #colouring() {
    const { norms, drift } = this.#shown;
    return this.#chosen !== null && this.#isThere(this.#chosen) ? this.#chosen : telling(norms, drift);
  }

  #colour() {
    const { norms } = this.#shown;
    const name = this.#colouring;
    const { pieces, legend, scale } = COLOURINGS[name].shades(norms, this.#shown);
    [...this.places.strip.querySelectorAll(".piece")].forEach((link, i) => paint(link, norms[i], pieces[i]));
    this.places.legend.replaceChildren(...(legend ? legend.map(entry) : scaleEntry(scale)));
    this.#choices(name);
  }

  #choices(name) {
    const { choice, colouring, about } = this.places;
    const names = Object.keys(COLOURINGS).filter((one) => this.#isThere(one));
    choice.hidden = this.#shown.norms.length === 0;
    if (String([...colouring.options].map((option) => option.value)) !== String(names)) colouring.replaceChildren(...names.map((one) => el("option", { value: one }, COLOURINGS[one].word)));
    colouring.value = name;
    if (about.dataset.of === name) return;
    about.dataset.of = name;
    about.replaceChildren(...(COLOURINGS[name].term ? [term(COLOURINGS[name].term, "what is that?")] : []));
  }
}

function piece(key, norm, many) {
  const outcome = outcomeOf(norm);
  const words = [el("strong", {}, norm.name), el("span", {}), el("small", {}, `${norm.num_features} channels`)];
  const link = el("a", { class: "piece", href: address(key, norm.name), "data-norm": norm.name, "data-outcome": outcome }, many ? null : words);
  link.toggleAttribute("data-folded", outcome !== "kept" && outcome !== "unused");
  if (many) link.style.blockSize = `${12 + 5 * Math.max(0, Math.log2(norm.num_features / 8))}px`;
  return link;
}

function paint(link, norm, shade) {
  const words = describe(norm, shade);
  link.dataset.tint = shade.tint;
  link.title = words;
  if (link.children.length) link.children[1].textContent = shade.text;
  else link.setAttribute("aria-label", words);
  if (shade.depth === undefined) link.style.removeProperty("--depth");
  else link.style.setProperty("--depth", `${Math.round(100 * shade.depth)}%`);
}

const entry = ({ tint, word, count }) =>
  el("li", { "data-tint": tint }, el("button", { type: "button", class: "plain", "data-find": tint, title: "Go to the next of these" }, el("strong", {}, String(count)), ` ${word}`));

const scaleEntry = (scale) =>
  scale ? [el("li", { class: "scale" }, el("span", { class: "number" }, number(scale.low, 3)), el("span", { class: "ramp", "aria-hidden": "true" }), el("span", { class: "unseen" }, " to "), el("span", { class: "number" }, number(scale.high, 3)))] : [];

/** Puts the focus on the next norm of one tint, round and round. */
function find(place, tint) {
  const links = [...place.querySelectorAll(".piece")];
  const from = links.findIndex((link) => link.hasAttribute("data-found")) + 1;
  const next = [...links.slice(from), ...links.slice(0, from)].find((link) => link.dataset.tint === tint);
  if (!next) return;
  for (const link of links) link.toggleAttribute("data-found", link === next);
  next.focus();
}

/** Arrow keys go through the strip, which is one stop of the Tab key. */
function walk(event) {
  const links = [...event.currentTarget.querySelectorAll(".piece")];
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
