// Small plots in tables and lists: plain SVG that stretches to its box; words and numbers stay in HTML, where they can be read.

import { el, svg } from "./dom.js";

const W = 100;
const isAll = (values) => values.every((value) => value !== null && Number.isFinite(value));

const stretched = (height, attributes, ...marks) =>
  svg("svg", { viewBox: `0 0 ${W} ${height}`, preserveAspectRatio: "none", ...attributes }, ...marks);

const upright = (x, height, name) =>
  svg("line", { class: name, x1: x, x2: x, y1: 0, y2: height, "vector-effect": "non-scaling-stroke" });

/** From min to max on an axis that all rows of a column share. */
export function range(summary, [low, high]) {
  if (!isAll([summary.min, summary.max])) return null;
  const x = (value) => (W * (value - low)) / (high - low || 1);
  const left = x(summary.min);
  return stretched(
    6,
    { class: "range", "aria-hidden": "true" },
    low < 0 && high > 0 ? upright(x(0), 6, "zero") : null,
    svg("rect", { x: left, y: 1.5, width: Math.max(x(summary.max) - left, 1.5), height: 3 }),
  );
}

/** Mean and one standard deviation to both sides. */
export function spread({ mean, std }, [low, high]) {
  if (!isAll([mean, std])) return el("span", { class: "quiet" }, "not a number");
  const x = (value) => (W * (value - low)) / (high - low || 1);
  return stretched(
    10,
    { class: "spread", "aria-hidden": "true" },
    low < 0 && high > 0 ? upright(x(0), 10, "zero") : null,
    svg("rect", { x: x(mean - std), y: 2.5, width: Math.max(x(mean + std) - x(mean - std), 0.6), height: 5 }),
    upright(x(mean), 10, "chosen"),
  );
}

/** The interval that holds every given value, and a little air. */
export function extent(values) {
  const finite = values.filter((value) => value !== null && Number.isFinite(value));
  if (!finite.length) return [0, 1];
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const air = 0.04 * (high - low || 1);
  return [low - air, high + air];
}
