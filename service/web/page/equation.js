// The equation of a norm with the numbers of one channel, and what it does to that channel.

import { el, math, number } from "./dom.js";
import { extent, spread } from "./plots.js";

/** What one channel knows; a weight of 1 and a bias of 0 where the norm has none. Null without statistics. */
export function numbersOf(norm, channel) {
  const of = (name) => norm.vectors[name]?.[channel];
  if (norm.vectors.running_mean === undefined) return null;
  return { mean: of("running_mean"), variance: of("running_var"), weight: norm.vectors.weight ? of("weight") : 1, bias: norm.vectors.bias ? of("bias") : 0, scale: of("scale"), shift: of("shift"), eps: norm.eps };
}

/** The layer in symbols, with this channel's numbers, and as what is left of it. */
export function equation(norm, channel, { mean, variance, weight, bias, scale, shift, eps }) {
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
export function journey({ mean, variance, weight, bias, eps }) {
  const root = (value) => (value === null ? NaN : Math.sqrt(value));
  const left = root(variance === null ? null : variance / (variance + eps));
  const steps = [
    ["x, as training saw it", { mean, std: root(variance) }],
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
