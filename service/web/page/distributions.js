// Distributions: histograms of what a norm's channels hold, each with the chosen channel in it.

import { Chart, bars } from "./chart.js";
import { NAMES, VECTORS, el, number, term } from "./dom.js";

/** Six histograms, as far as the norm has them; `choose(channel)` marks one channel in all. */
export function distributions(norm) {
  const drawn = VECTORS.filter((name) => norm.histograms[name]).map((name) => distribution(norm, name));
  return {
    element: el("div", { class: "distributions" }, drawn.map(({ element }) => element)),
    choose: (channel) => drawn.forEach(({ choose }) => choose(channel)),
  };
}

function distribution(norm, name) {
  const { edges, counts } = norm.histograms[name];
  const [low, high] = [edges[0], edges.at(-1)];
  const centres = counts.map((_, i) => (edges[i] + edges[i + 1]) / 2);
  const chart = new Chart(
    described(norm, name),
    { series: [bars("accent")], x: { range: () => [low, high] }, y: { range: (_, __, most) => [0, Math.max(1, most)], values: whole } },
    [centres, counts],
  );
  const value = el("span", { class: "number chosen" });
  const choose = (channel) => {
    const chosen = norm.vectors[name][channel];
    value.textContent = number(chosen, 4);
    chart.mark([[low < 0 && high > 0 ? 0 : NaN, "quiet", true], [chosen, "warm", false]]);
  };
  return { element: el("figure", { "data-quantity": name }, el("figcaption", {}, term(name), value), chart.element), choose };
}

function described(norm, name) {
  const { edges } = norm.histograms[name];
  const { mean, std } = norm[name];
  return `${NAMES[name]} of ${norm.num_features} channels: ${number(edges[0], 3)} to ${number(edges.at(-1), 3)}, mean ${number(mean, 3)}, standard deviation ${number(std, 3)}`;
}

/** Counts have whole numbers on their axis. */
const whole = (_, splits) => splits.map((split) => (Number.isInteger(split) ? String(split) : ""));
