// The sample: how far the image that was tried lies, at each norm, from what the norm knows.

import { address, same } from "./address.js";
import { bells } from "./bells.js";
import { Chart, bars, line } from "./chart.js";
import { el, number, term } from "./dom.js";
import { worst } from "./worst.js";

const MANY = 12; // norms, past which they are a chart, with the farthest as a list
const LISTED = 5; // of so many

/** How often the typical score of a norm this one is; null where no baseline says what is typical. */
export const ratio = ({ score, typical }) => (typical > 0 ? score / typical : null);
const farness = (layer) => ratio(layer) ?? layer.score;
const farthest = (layers) => layers.toSorted((one, other) => farness(other) - farness(one));

/** Scores in one column. */
const short = (value) => (value < 100 ? value.toFixed(2) : number(value, 3));

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
  const usual = reference === "baseline" ? "images of the baseline" : "training";
  const far = times === null ? `a distance of ${short(layer.score)} from ${usual}` : `${number(times, 2)} times as far off as ${usual} typically are`;
  const [first] = layer.worst;
  const there = first ? [" What differs most there is ", el("a", { href: address(key, layer.name, first.channel), "data-norm": layer.name, "data-from": "sample" }, `channel ${first.channel}`), `: ${differs(first)}.`] : [];
  return ["Farthest at ", el("strong", {}, layer.name), `, ${far}.`, ...there];
}

/** "its mean lies 1.5 deviations higher, its variance is 0.78 times as large". */
function differs({ delta, lambda }) {
  const mean = delta === null ? null : Math.abs(delta) < 0.05 ? "its mean is the same" : `its mean lies ${number(Math.abs(delta), 2)} deviations ${delta < 0 ? "lower" : "higher"}`;
  const variance = lambda === null ? null : `its variance is ${number(Math.exp(lambda), 2)} times as large`;
  return [mean, variance].filter((words) => words !== null).join(", ") || "its values are not finite";
}

/** A line for each norm, which opens it; all lie on one scale. */
function list(report, layers) {
  const most = Math.max(...report.layers.map(({ score, typical }) => Math.max(score, typical ?? 0)), 1e-9);
  return el("ol", { class: "shifts", "aria-label": "Shift of this image at each norm" }, layers.map((layer) => el("li", {}, shift(report, layer, most))));
}

function shift(key, { name, score, typical }, most) {
  const share = (value) => `${(100 * Math.max(0, value)) / most}%`;
  const bar = el("span", { class: "shift", "aria-hidden": "true" }, el("span", { class: "usual" }), el("span", { class: "beyond" }), typical === null ? null : el("span", { class: "tick" }));
  const [usual, beyond, tick] = bar.children;
  usual.style.inlineSize = share(Math.min(score, typical ?? score));
  beyond.style.inlineSize = share(score - (typical ?? score));
  if (tick) tick.style.insetInlineStart = share(typical);
  const words = typical === null ? "" : `, typically ${number(typical, 2)}`;
  return el("a", { href: address(key, name), "data-norm": name, "data-from": "sample" }, el("span", { class: "label" }, name), bar, el("span", { class: "number" }, short(score)), el("span", { class: "unseen" }, words));
}

/** Very many norms: one column for each, which opens it. */
function chart(report) {
  const { layers } = report;
  const at = layers.map((_, i) => i);
  const said = el("span", { class: "number" });
  const known = layers.some(({ typical }) => typical !== null);
  const plot = new Chart(
    `Shift of this image at each of ${layers.length} norms, in network order; the farthest are listed`,
    {
      series: [bars("accent"), ...(known ? [line("warm")] : [])],
      x: { range: (_, low, high) => [low - 0.5, high + 0.5], values: (_, splits) => splits.map((split) => (Number.isInteger(split) ? String(split + 1) : "")) },
      y: { range: (_, __, most) => [0, most || 1] },
      onPick: (i) => (location.hash = address(report, layers[i].name)),
      onHover: (i) => (said.textContent = i === null || i === undefined ? "" : `${layers[i].name} ${number(layers[i].score, 2)}`),
    },
    [at, layers.map(({ score }) => score), ...(known ? [layers.map(({ typical }) => typical)] : [])],
  );
  return el("figure", {}, plot.element, el("figcaption", { class: "hovered" }, el("span", { class: "quiet" }, "norms in network order"), said));
}

function legend({ layers, reference }, asked) {
  const known = layers.some(({ typical }) => typical !== null);
  const words = known ? el("span", { class: "key-tick" }, "typical of the baseline’s images") : el("span", {}, reference === "frozen" ? "a recorded baseline would say what is typical" : "");
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
  const one = layer.worst.find(({ channel }) => channel === chosen);
  const known = reference === "baseline" ? "baseline" : "training";
  const far = times === null ? "" : el("span", { class: "quiet" }, `, ${number(times, 2)} times what is typical`);
  const curves = one ? bells(chosen, known, "this image", one) : el("p", { class: "quiet" }, "Choose one of these channels to see the image’s own values over what the norm knows.");
  return [
    el("h4", {}, term("sample", "The tried image"), el("span", { class: "quiet" }, " at this norm: "), el("span", { class: "number" }, short(layer.score)), far),
    el("div", { class: "pair" }, worst(layer.worst, chosen, pick), curves),
  ];
}
