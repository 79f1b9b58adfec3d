// Plots: plain SVG that stretches to its box; words and numbers stay in HTML, where they can be read.

import { svg } from "./dom.js";

const W = 100;
const H = 40;

const stretched = (height, attributes, ...marks) =>
  svg("svg", { viewBox: `0 0 ${W} ${height}`, preserveAspectRatio: "none", ...attributes }, ...marks);

const upright = (x, height, name) =>
  svg("line", { class: name, x1: x, x2: x, y1: 0, y2: height, "vector-effect": "non-scaling-stroke" });

/** A histogram with the place of 0 and of one chosen value. */
export function histogram({ edges, counts }, chosen, label) {
  const [low, high] = [edges[0], edges[edges.length - 1]];
  const x = (value) => (W * (value - low)) / (high - low || 1);
  const most = Math.max(...counts, 1);
  const bars = counts.map((count, i) => {
    const height = (H - 2) * (count / most);
    return svg("rect", { x: x(edges[i]) + 0.25, y: H - height, width: Math.max(x(edges[i + 1]) - x(edges[i]) - 0.5, 0.2), height });
  });
  const zero = low < 0 && high > 0 ? upright(x(0), H, "zero") : null;
  const value = Number.isFinite(chosen) ? upright(x(chosen), H, "chosen") : null;
  return stretched(H, { class: "histogram", role: "img", "aria-label": label }, bars, zero, value);
}

/** From min to max on an axis that all rows of a column share. */
export function range(summary, [low, high]) {
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
  const finite = values.filter(Number.isFinite);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const air = 0.04 * (high - low || 1);
  return [low - air, high + air];
}
