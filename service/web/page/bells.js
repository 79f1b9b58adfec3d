// Bells: what a channel's values come to, drawn as normal distributions over one another.

import { Chart, line } from "./chart.js";
import { el, number } from "./dom.js";

const POINTS = 160;
const bell = ({ mean, deviation }) => (x) => Math.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * Math.sqrt(2 * Math.PI));
const KINDS = {
  training: { series: line("quiet", { width: 1.5, dash: [1.5, 3] }), key: "key-dotted" },
  baseline: { series: line("quiet", { dash: [5, 4] }), key: "key-dashed" },
  seen: { series: line("accent", { width: 2.5 }), key: "key-line" },
};

/** Curves `{name, kind, mean, deviation}` over one axis, in the units that `words` names; those without moments are left out. */
export function overlaid(channel, curves, words) {
  const drawn = curves.filter(({ mean, deviation }) => mean !== null && deviation > 0);
  if (!drawn.length) return el("p", { class: "quiet" }, `Channel ${channel} does not vary, so there is no distribution to draw.`);
  const low = Math.min(...drawn.map(({ mean, deviation }) => mean - 3.2 * deviation));
  const high = Math.max(...drawn.map(({ mean, deviation }) => mean + 3.2 * deviation));
  const at = Array.from({ length: POINTS + 1 }, (_, i) => low + ((high - low) * i) / POINTS);
  const said = drawn.map(({ name, mean, deviation }) => `${name}: mean ${number(mean, 3)}, deviation ${number(deviation, 3)}`);
  const chart = new Chart(
    `Channel ${channel}, ${words}. ${said.join("; ")}`,
    { series: drawn.map(({ kind }) => KINDS[kind].series), y: { range: (_, __, most) => [0, most * 1.05] } },
    [at, ...drawn.map((curve) => at.map(bell(curve)))],
  );
  const keys = drawn.map(({ name, kind }) => el("span", { class: KINDS[kind].key }, name));
  return el("figure", {}, el("figcaption", {}, el("span", {}, `Channel ${channel}`), keys), chart.element, el("p", { class: "quiet small" }, `Drawn as normal distributions, ${words}`));
}

/** Of a channel nothing is known but how far it moved: both curves in deviations of the reference. */
export const bells = (channel, reference, name, { delta, lambda }) =>
  overlaid(
    channel,
    [
      { name: reference, kind: reference === "baseline" ? "baseline" : "training", mean: 0, deviation: 1 },
      { name, kind: "seen", mean: delta, deviation: Math.exp(lambda / 2) },
    ],
    `in deviations of the ${reference}’s values`,
  );
