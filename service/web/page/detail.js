// One norm: its equation with the numbers of one channel, and how its channels are distributed.

import { NAMES, VECTORS, el, math, number, term } from "./dom.js";
import { chip, momentum } from "./norms.js";
import { extent, histogram, spread } from "./plots.js";

/** Fills the panel; `onChannel` is told of every channel that the reader chooses. */
export function showDetail(place, norm, channel, onChannel) {
  const changing = el("div", {});
  const pick = (to) => {
    changing.replaceChildren(...ofChannel(norm, to));
    onChannel(to);
  };
  place.replaceChildren(
    el(
      "div",
      { class: "detail-head" },
      el("h3", { id: "detail-title", tabindex: "-1" }, norm.name),
      chip(norm),
      el("p", { class: "quiet" }, norm.reason ?? "The network does not call it at inference."),
    ),
    facts(norm),
    channels(norm, channel, pick),
    changing,
  );
  changing.append(...ofChannel(norm, channel));
  place.hidden = false;
}

function facts(norm) {
  const rows = [
    [el("span", {}, "channels"), norm.num_features],
    [term("eps"), number(norm.eps)],
    [term("momentum"), momentum(norm)],
    [term("num_batches_tracked"), norm.num_batches_tracked === null ? "–" : norm.num_batches_tracked.toLocaleString("en")],
    [el("span", {}, "learns γ and β"), norm.affine ? "yes" : "no"],
    [el("span", {}, "running statistics"), norm.track_running_stats ? "yes" : "no"],
  ];
  return el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { class: "number" }, String(value)))));
}

function channels(norm, channel, pick) {
  const last = norm.num_features - 1;
  const slider = el("input", { type: "range", min: 0, max: last, value: channel, "aria-label": "Channel, as a slider" });
  const field = el("input", { type: "number", min: 0, max: last, value: channel, id: "channel" });
  const take = (from, other) => () => {
    const to = Math.min(last, Math.max(0, Math.round(from.valueAsNumber)));
    if (Number.isNaN(to)) return;
    other.value = to;
    pick(to);
  };
  slider.addEventListener("input", take(slider, field));
  field.addEventListener("input", take(field, slider));
  field.addEventListener("change", () => (field.value = slider.value));
  return el("div", { class: "channels" }, el("label", { for: "channel" }, "Channel"), field, slider, el("span", { class: "quiet" }, `0 to ${last}`));
}

function ofChannel(norm, channel) {
  const of = (name) => norm.vectors[name]?.[channel];
  if (of("running_mean") === undefined) {
    return [el("p", {}, "This norm keeps no running statistics: it always uses the batch’s own, so there is nothing to fold."), distributions(norm, of)];
  }
  const numbers = { mean: of("running_mean"), variance: of("running_var"), weight: of("weight") ?? 1, bias: of("bias") ?? 0, scale: of("scale"), shift: of("shift"), eps: norm.eps };
  return [
    el("div", { class: "pair even" }, equation(norm, channel, numbers), journey(numbers)),
    distributions(norm, of),
  ];
}

/** The layer in symbols, with this channel's numbers, and as what is left of it. */
function equation(norm, channel, { mean, variance, weight, bias, scale, shift, eps }) {
  const value = (name, given) => {
    const digits = math("mn", { "data-quantity": name }, number(given, 5));
    return given < 0 && name !== "weight" && name !== "scale" ? math("mrow", {}, math("mo", {}, "("), digits, math("mo", {}, ")")) : digits;
  };
  const word = (text) => math("mi", { class: "word" }, text);
  const row = (name, ...terms) => el("div", {}, el("dt", {}, name), el("dd", {}, math("math", { display: "block" }, math("mrow", {}, math("mi", {}, "y"), op("="), terms))));
  return el(
    "dl",
    { class: "equation" },
    row("every BatchNorm", ...layer(word("weight"), word("mean"), word("var"), word("eps"), word("bias"))),
    row(
      `${norm.name}, channel ${channel}`,
      ...layer(value("weight", weight), value("running_mean", mean), value("running_var", variance), value("eps", eps), value("bias", bias)),
    ),
    row("what is left", value("scale", scale), op("·"), math("mi", {}, "x"), op("+"), value("shift", shift)),
  );
}

const op = (sign) => math("mo", {}, sign);

const layer = (weight, mean, variance, eps, bias) => [
  weight,
  op("·"),
  math("mfrac", {}, math("mrow", {}, math("mi", {}, "x"), op("−"), mean), math("msqrt", {}, math("mrow", {}, variance, op("+"), eps))),
  op("+"),
  bias,
];

/** A channel's mean and standard deviation before, between and after: what normalising is for. */
function journey({ mean, variance, weight, bias, eps }) {
  const left = Math.sqrt(variance / (variance + eps));
  const steps = [
    ["x, as training saw it", { mean, std: Math.sqrt(variance) }],
    ["normalised", { mean: 0, std: left }],
    ["y = γ · normalised + β", { mean: bias, std: Math.abs(weight) * left }],
  ];
  const axis = extent([0, ...steps.flatMap(([, { mean: m, std }]) => [m - std, m + std])]);
  return el(
    "figure",
    { class: "journey" },
    el("figcaption", {}, "Mean ± one standard deviation of this channel, on one axis"),
    el(
      "dl",
      {},
      steps.map(([name, step]) => el("div", {}, el("dt", {}, name), el("dd", {}, spread(step, axis), el("span", { class: "number" }, `${number(step.mean, 3)} ± ${number(step.std, 3)}`)))),
    ),
  );
}

function distributions(norm, of) {
  return el("div", { class: "distributions" }, VECTORS.filter((name) => norm.histograms[name]).map((name) => distribution(norm, name, of(name))));
}

function distribution(norm, name, chosen) {
  const { edges } = norm.histograms[name];
  const { mean, std } = norm[name];
  const described = `${NAMES[name]} of ${norm.num_features} channels: ${number(edges[0], 3)} to ${number(edges.at(-1), 3)}, mean ${number(mean, 3)}, standard deviation ${number(std, 3)}`;
  return el(
    "figure",
    { "data-quantity": name },
    el("figcaption", {}, term(name), el("span", { class: "number chosen" }, number(chosen, 4))),
    histogram(norm.histograms[name], chosen, described),
    el("div", { class: "ends number", "aria-hidden": "true" }, el("span", {}, number(edges[0], 3)), el("span", {}, number(edges.at(-1), 3))),
  );
}
