// The sample: how far the image that was tried lies, at each norm, from what the norm knows.

import { address, same } from "./address.js";
import { bells } from "./bells.js";
import { Chart, bars, dots, line } from "./chart.js";
import { el, number, term } from "./dom.js";
import { worst } from "./worst.js";

const MANY = 12; // norms, past which they are a chart, with the farthest as a list
const LISTED = 5; // of so many
const NEAR = 1.5; // times what is typical, below which no norm need be named

/** How often the typical score of a norm this one is; null where no baseline says what is typical. */
export const ratio = ({ score, typical }) => (typical > 0 ? score / typical : null);
const farness = (layer) => ratio(layer) ?? layer.score;
/** Whether a baseline says what is typical. */
export const isTold = ({ layers }) => layers.some((layer) => ratio(layer) !== null);
const farthest = (layers) => layers.toSorted((one, other) => farness(other) - farness(one));

export class Sample {
  /** `asked` is told when the reader wants the strip coloured by the sample. */
  constructor(place, asked) {
    [this.place, this.asked] = [place, asked];
    this.words = place.querySelector("[aria-live]");
    this.rows = place.querySelector(".rows");
  }

  get isEmpty() {
    return !this.rows.children.length;
  }

  /** That it is being asked for, or why it is not known. */
  say(words) {
    this.place.hidden = false;
    this.words.replaceChildren(el("span", { class: "quiet" }, words));
    this.rows.replaceChildren();
  }

  hide() {
    this.place.hidden = true;
    this.words.replaceChildren();
    this.rows.replaceChildren();
  }

  show(report) {
    this.place.hidden = false;
    const { layers } = report;
    if (!layers.length) return this.say("No norm of this network is looked at.");
    const ordered = farthest(layers);
    this.words.replaceChildren(...summary(report, ordered[0]));
    this.rows.replaceChildren(
      layers.length > MANY ? chart(report) : "",
      list(report, layers.length > MANY ? ordered.slice(0, LISTED) : layers),
      legend(report, this.asked),
    );
  }
}

function summary({ reference, ...key }, layer) {
  const times = ratio(layer);
  if (times !== null && times < NEAR) return ["At every norm about as near to the baseline as its own images typically are."];
  const far = times === null ? `a distance of ${number(layer.score, 2)} from ${reference === "baseline" ? "the baseline" : "training"}` : `${number(times, 2)} times as far off as the baseline’s images typically are`;
  const [first] = layer.worst;
  const there = first ? [" What differs most there is ", el("a", { href: address(key, layer.name, first.channel), "data-norm": layer.name, "data-from": "sample" }, `channel ${first.channel}`), `: ${differs(first)}.`] : [];
  return ["Farthest at ", el("strong", {}, layer.name), `, ${far}.`, ...there];
}

/** "its mean lies 1.5 deviations higher, its variance is 0.78 times as large". */
function differs({ delta, lambda }) {
  const mean = delta === null ? null : Math.abs(delta) < 0.05 ? "its mean is the same" : `its mean lies ${number(Math.abs(delta), 2)} deviations ${delta < 0 ? "lower" : "higher"}`;
  const variance = lambda === null ? null : lambda < -4 ? "it hardly varies over the image" : `its variance is ${number(Math.exp(lambda), 2)} times as large`;
  return [mean, variance].filter((words) => words !== null).join(", ") || "its values are not finite";
}

/** A line for each norm, which opens it; all lie on one scale. */
function list(report, layers) {
  const most = Math.max(2, ...report.layers.map((layer) => ratio(layer) ?? 0));
  return el("ol", { class: "shifts", "aria-label": "Shift of this image at each norm" }, layers.map((layer) => el("li", {}, shift(report, layer, most))));
}

function shift(key, layer, most) {
  const { name, score } = layer;
  const times = ratio(layer);
  const bar = times === null ? distance(score) : multiple(times, most);
  const words = times === null ? ["", number(score, 2)] : [` times what is typical; distance ${number(score, 2)}`, `${times.toFixed(times < 10 ? 2 : 0)} ×`];
  return el("a", { href: address(key, name), "data-norm": name, "data-from": "sample", title: `distance ${number(score, 3)}` }, el("span", { class: "label" }, name), bar, el("span", { class: "number" }, words[1], el("span", { class: "unseen" }, words[0])));
}

/** A bar up to so many times what is typical, past which it has another colour. */
function multiple(times, most) {
  const share = (value) => `${(100 * Math.max(0, value)) / most}%`;
  const [usual, beyond, tick] = ["usual", "beyond", "tick"].map((name) => el("span", { class: name }));
  usual.style.inlineSize = share(Math.min(times, 1));
  beyond.style.inlineSize = share(times - 1);
  tick.style.insetInlineStart = share(1);
  return el("span", { class: "shift", "aria-hidden": "true" }, usual, beyond, tick);
}

/** A bar on a logarithmic scale, where nothing is known to be typical: from 0.001 to 10, the largest divergence that is told. */
function distance(score) {
  const bar = el("span", { class: "shift", "aria-hidden": "true" }, el("span", { class: "usual" }));
  bar.firstChild.style.inlineSize = `${Math.min(100, Math.max(0, 25 * (Math.log10(Math.max(score, 1e-9)) + 3)))}%`;
  return bar;
}

/** Very many norms: one column for each, which opens it. */
function chart(report) {
  const { layers } = report;
  const said = el("span", { class: "number" });
  const plot = new Chart(
    `Shift of this image at each of ${layers.length} norms, in network order; the farthest are listed`,
    {
      ...(isTold(report) ? { series: [bars("accent"), line("warm")], y: { range: (_, __, most) => [0, Math.max(2, most)] } } : { series: [dots("accent")], y: { log: true } }),
      x: { range: (_, low, high) => [low - 0.5, high + 0.5], values: (_, splits) => splits.map((split) => (Number.isInteger(split) ? String(split + 1) : "")) },
      onPick: (i) => (location.hash = address(report, layers[i].name)),
      onHover: (i) => (said.textContent = layers[i] ? `${layers[i].name} ${number(farness(layers[i]), 2)}` : ""),
    },
    columns(report),
  );
  const words = isTold(report) ? "times what is typical, in network order" : "distance, in network order";
  return el("figure", {}, plot.element, el("figcaption", { class: "hovered" }, el("span", { class: "quiet" }, words), said));
}

function columns(report) {
  const at = report.layers.map((_, i) => i);
  if (isTold(report)) return [at, report.layers.map(ratio), at.map(() => 1)];
  return [at, report.layers.map(({ score }) => Math.max(score, 1e-6))];
}

function legend(report, asked) {
  const words = isTold(report) ? el("span", { class: "key-tick" }, "typical of the baseline’s images") : el("span", {}, "Logarithmic, from 0.001 to 10. With a ", el("code", {}, "foldserve calibrate"), " baseline it says what is typical.");
  return el("p", { class: "under quiet" }, words, el("button", { type: "button", class: "link", onclick: asked }, "Colour the strip by this"));
}

/** The sample at one norm: the channels that moved most, and how the chosen one lies. */
export function sampleOf(norm, pick) {
  const element = el("section", { class: "live-rows", "aria-label": "The tried image at this norm", hidden: true });
  let [report, key, channel] = [null, null, 0];
  const draw = () => {
    const layer = report && same(report, key) ? report.layers.find(({ name }) => name === norm.name) : null;
    element.hidden = !layer;
    element.replaceChildren(...(layer ? parts(layer, report, channel, pick) : []));
  };
  return { element, show: (to, of) => (([report, key] = [to, of]), draw()), choose: (to) => ((channel = to), draw()) };
}

function parts(layer, { reference }, chosen, pick) {
  const times = ratio(layer);
  const drawn = layer.worst.find(({ channel }) => channel === chosen) ?? layer.worst[0];
  const far = times === null ? "" : el("span", { class: "quiet" }, `, ${number(times, 2)} times what is typical`);
  return [
    el("h4", {}, term("sample", "The tried image"), el("span", { class: "quiet" }, " at this norm: "), el("span", { class: "number" }, number(layer.score, 2)), far),
    el("div", { class: "pair" }, worst(layer.worst, chosen, pick), drawn ? bells(drawn.channel, reference === "baseline" ? "baseline" : "training", "this image", drawn) : null),
  ];
}
