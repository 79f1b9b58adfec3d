// Colourings: what the strip may be coloured by, and how each norm then looks.

import { gravest } from "./flags.js";
import { counted, number, score } from "./dom.js";
import { nearness } from "./drift.js";
import { OUTCOMES, outcomeOf, whereTo } from "./outcomes.js";
import { isTold, ratio } from "./sample.js";

/** Every norm falls into one of a few classes. */
const classes = (words, of) => (norms, { drift }) => {
  const pieces = norms.map((norm) => of(norm, drift));
  const legend = Object.entries(words)
    .map(([tint, word]) => ({ tint, word, count: pieces.filter((piece) => piece.tint === tint).length }))
    .filter(({ count }) => count);
  return { pieces, legend };
};

/** Every norm has a number; they lie on one scale, from the least to the greatest, or wider where `reach` says so. */
const numbers = (of, { log = false, words = (value) => number(value, 3), reach = () => [] } = {}) => (norms, seen) => {
  const values = norms.map((norm) => of(norm, seen));
  const on = (value) => (log ? Math.log10(value) : value);
  const finite = values.filter((value) => value !== null && Number.isFinite(on(value)));
  const [low, high] = [Math.min(...finite, ...reach(seen)), Math.max(...finite, ...reach(seen))];
  const depth = (value) => (on(value) - on(low)) / (on(high) - on(low) || 1);
  const pieces = values.map((value) =>
    value !== null && Number.isFinite(value) ? { tint: "scale", depth: Math.min(1, Math.max(0, depth(value))) || 0, text: words(value, seen) } : { tint: "unknown", text: "not known" },
  );
  return { pieces, scale: finite.length ? { low, high } : null };
};

const farthest = (summary) => (summary?.min ?? null) === null || summary.max === null ? null : Math.max(Math.abs(summary.min), Math.abs(summary.max));
const WATCHED = { "drift-over": "above its threshold", "drift-near": "near it", "drift-under": "below it", unknown: "not watched" };
const HEALTH = { "flag-error": "error", "flag-warning": "warning", "flag-note": "note", "flag-none": "no flag" };

function health(norm) {
  const level = gravest(norm);
  const names = norm.flags.map((flag) => flag.flag.replaceAll("_", " ")).join(", ");
  return { tint: `flag-${level}`, text: names ? `${level}: ${names}` : "no flag" };
}

function watched(norm, drift) {
  const layer = drift?.layers.find(({ name }) => name === norm.name);
  if (!layer) return { tint: "unknown", text: "not watched" };
  const threshold = drift.thresholds?.[layer.part] ?? null;
  return { tint: nearness(layer.score, threshold), text: score(layer.score, threshold) };
}

/** How far the tried image lies from the norm's reference: in times of what is typical, where that is known. */
function tried(norm, { sample }) {
  const layer = sample?.layers.find(({ name }) => name === norm.name);
  return layer ? (ratio(layer) ?? layer.score) : null;
}

const times = (value, { sample }) => (isTold(sample) ? `${number(value, 2)} × typical` : number(value, 3));
const TRIED = { log: true, words: times, reach: ({ sample }) => (isTold(sample) ? [0.5, 4] : [1e-3, 10]) };

/** By name: the words of the choice, the quantity that explains it, and the shades of all norms. */
export const COLOURINGS = {
  outcome: {
    word: "what became of them",
    shades: classes(Object.fromEntries(Object.entries(OUTCOMES).map(([tint, { word }]) => [tint, word])), (norm) => ({
      tint: outcomeOf(norm),
      text: whereTo(norm) || OUTCOMES[outcomeOf(norm)].word,
    })),
  },
  flags: { word: "health flags", term: "flags", shades: classes(HEALTH, health) },
  drift: { word: "drift of live rows", term: "drift", shades: classes(WATCHED, watched) },
  sample: { word: "the tried image", term: "sample", shades: numbers(tried, TRIED) },
  folding_error: { word: "folding error", term: "folding_error", shades: numbers((norm) => norm.folding_error ?? null, { log: true }) },
  running_mean: { word: "running mean, farthest from 0", term: "running_mean", shades: numbers((norm) => farthest(norm.running_mean)) },
  running_var: { word: "running variance, mean", term: "running_var", shades: numbers((norm) => norm.running_var?.mean ?? null, { log: true }) },
  weight: { word: "weight γ, mean", term: "weight", shades: numbers((norm) => norm.weight?.mean ?? null) },
  bias: { word: "bias β, mean", term: "bias", shades: numbers((norm) => norm.bias?.mean ?? null) },
  scale: { word: "scale, farthest from 0", term: "scale", shades: numbers((norm) => farthest(norm.scale), { log: true }) },
  shift: { word: "shift, farthest from 0", term: "shift", shades: numbers((norm) => farthest(norm.shift)) },
};

/** What tells most: flags where one alarms, drift where that does, else what became of the norms. */
export function telling(norms, drift) {
  if (norms.some((norm) => ["error", "warning"].includes(gravest(norm)))) return "flags";
  return drift?.state === "drifting" ? "drift" : "outcome";
}

export const describe = (norm, { text }) =>
  `${norm.name}, ${OUTCOMES[outcomeOf(norm)].word} ${whereTo(norm)}, ${counted(norm.num_features, "channel")}; ${text}`;
