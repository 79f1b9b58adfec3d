// The profile: one quantity over all channels, in which a channel may be chosen.

import { Chart, band, dots, line } from "./chart.js";
import { NAMES, VECTORS, el, number, term } from "./dom.js";

/** A plot over the channels of `norm`; `pick` is told of the channel that is clicked. Null where nothing is known. */
export function profile(norm, pick) {
  const names = ["input", ...VECTORS].filter((name) => (name === "input" ? norm.vectors.running_var : norm.vectors[name]));
  if (!names.length) return null;
  const select = el("select", { id: "profile" }, names.map((name) => el("option", { value: name }, WORDS[name] ?? NAMES[name])));
  const place = el("div");
  const meaning = el("span");
  let [chosen, chart] = [0, null];
  const draw = () => {
    chart = new Chart(described(norm, select.value), { ...KINDS[select.value === "input" ? "input" : "vector"], onPick: pick }, rows(norm, select.value));
    chart.mark([[chosen, "warm", false]]);
    place.replaceChildren(chart.element);
    meaning.replaceChildren(term(select.value, "what is that?"));
  };
  select.addEventListener("change", draw);
  draw();
  const choose = (channel) => {
    chosen = channel;
    chart.mark([[chosen, "warm", false]]);
  };
  return { element: el("figure", { class: "profile" }, el("figcaption", {}, el("label", { for: "profile" }, "Over all channels"), select, meaning), place), choose };
}

const WORDS = { input: "input: running mean ± one standard deviation" };
const channels = { range: (_, low, high) => [low - 0.5, high + 0.5], values: (_, splits) => splits.map((split) => (Number.isInteger(split) ? String(split) : "")) };
const KINDS = {
  input: { series: [line("accent-soft", { width: 0 }), line("accent-soft", { width: 0 }), dots("accent")], bands: [band("accent-soft", 1, 2)], x: channels },
  vector: { series: [dots("accent")], x: channels },
};

function rows(norm, name) {
  const { running_mean: means, running_var: variances } = norm.vectors;
  const at = Array.from({ length: norm.num_features }, (_, channel) => channel);
  if (name !== "input") return [at, norm.vectors[name]];
  const deviation = (channel) => (variances[channel] >= 0 ? Math.sqrt(variances[channel]) : null);
  const off = (sign) => at.map((channel) => (means[channel] === null || deviation(channel) === null ? null : means[channel] + sign * deviation(channel)));
  return [at, off(1), off(-1), means];
}

function described(norm, name) {
  const { min, max } = norm[name === "input" ? "running_mean" : name];
  return `${WORDS[name] ?? NAMES[name]}, for each of ${norm.num_features} channels, from ${number(min, 3)} to ${number(max, 3)}. The slider chooses a channel.`;
}
