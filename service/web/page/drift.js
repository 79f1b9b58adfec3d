// Drift: what live rows come to, beside what training or the baseline saw; for the network and for one norm.

import { Chart, line } from "./chart.js";
import { counted, el, number, term } from "./dom.js";

/** The state of a version's live rows in words and numbers; nothing where nobody looks at them. */
export function showDrift(place, report) {
  place.hidden = !report;
  const children = report ? sentences(report) : [];
  const said = children.map((child) => child.textContent).join("\n");
  if (said === place.dataset.said) return; // so that an opened meaning keeps its button
  place.dataset.said = said;
  place.replaceChildren(...children);
}

function sentences(report) {
  const { state, meaning, scores, thresholds, reference, baseline_rows, collected, contrary, n, n_eff } = report;
  const against = reference === "baseline" ? `the baseline of ${counted(baseline_rows, "row")}` : "the frozen statistics";
  const rows = n ? `of ${counted(n, "row")}, worth ${number(n_eff, 3)} independent ones, against ${against}${contrary ? `; ${counted(contrary, "window")} in a row said otherwise, and three change the state` : ""}` : `${counted(collected, "row")} seen so far`;
  return [
    el("p", {}, term("drift", "Live rows"), ": ", el("strong", { class: "state", "data-state": state }, state), " ", el("span", { class: "quiet" }, meaning)),
    state === "off" || state === "failed" ? null : el("p", { class: "quiet" }, scores ? el("span", { class: "number" }, `input ${of(scores.input, thresholds?.input)}; ${texture(scores, thresholds)}content ${of(scores.content, thresholds?.content)}`) : null, ` ${rows}`),
  ].filter((child) => child !== null);
}

const of = (score, threshold) => (score === null ? "not watched" : `${number(score, 3)} of ${number(threshold, 3)}`);

const texture = (scores, thresholds) => ((scores.texture ?? null) === null ? "" : `texture ${of(scores.texture, thresholds?.texture)}; `);

/** The live rows at one norm: its score, its worst channels, and the chosen channel's distributions. */
export function driftOf(norm, pick) {
  const element = el("section", { class: "live-rows", "aria-label": "Live rows at this norm", hidden: true });
  let [report, channel] = [null, 0];
  const draw = () => {
    const layer = report?.layers.find(({ name }) => name === norm.name);
    const state = JSON.stringify([layer, channel, report?.reference, report?.thresholds]);
    if (state === element.dataset.state) return;
    element.dataset.state = state;
    element.hidden = !layer;
    element.replaceChildren(...(layer ? parts(layer, report, channel, pick) : []));
  };
  return { element, show: (to) => ((report = to), draw()), choose: (to) => ((channel = to), draw()) };
}

function parts(layer, report, chosen, pick) {
  const worst = layer.worst.find(({ channel }) => channel === chosen);
  const score = of(layer.score, report.thresholds?.[layer.part]);
  return [
    el("h4", {}, term("drift", "Live rows"), el("span", { class: "quiet" }, ` at this norm (${layer.part}): `), el("span", { class: "number" }, score)),
    el("div", { class: "pair even" }, channels(layer, chosen, pick), worst ? curves(worst, report.reference) : el("p", { class: "quiet" }, "Choose one of the channels that moved most to see its live distribution over the frozen one.")),
  ];
}

function channels(layer, chosen, pick) {
  const head = [["channel", null], ["mean δ", "delta"], ["variance λ", "lambda"], ["z", "z"]];
  const row = (one) => el("tr", { "data-open": one.channel === chosen ? "" : null }, el("th", { scope: "row" }, el("button", { type: "button", class: "link", onclick: () => pick(one.channel) }, String(one.channel))), ["delta", "lambda", "z"].map((name) => el("td", { class: "number right" }, number(one[name], 3))));
  return el(
    "table",
    { class: "worst" },
    el("caption", {}, "The channels that moved most"),
    el("thead", {}, el("tr", {}, head.map(([words, key]) => el("th", { scope: "col", class: key ? "right" : null }, key ? term(`drift_${key}`, words) : words)))),
    el("tbody", {}, layer.worst.map(row)),
  );
}

const bell = (mean, deviation) => (x) => Math.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * Math.sqrt(2 * Math.PI));

/** Two normal distributions with the known moments, in standard deviations of the reference. */
function curves({ channel, delta, lambda }, reference) {
  const deviation = Math.exp(lambda / 2);
  const [low, high] = [Math.min(-3, delta - 3 * deviation), Math.max(3, delta + 3 * deviation)];
  const at = Array.from({ length: 161 }, (_, i) => low + ((high - low) * i) / 160);
  const known = reference === "baseline" ? "baseline" : "frozen";
  const label = `Channel ${channel}: the ${known} distribution has mean 0 and deviation 1, the live one mean ${number(delta, 3)} and deviation ${number(deviation, 3)}`;
  const chart = new Chart(label, { series: [line("quiet", { dash: [4, 4] }), line("accent", { width: 2.5 })], y: { range: (_, __, most) => [0, most * 1.05] } }, [at, at.map(bell(0, 1)), at.map(bell(delta, deviation))]);
  return el(
    "figure",
    {},
    el("figcaption", {}, el("span", { class: "key-dashed" }, known), el("span", { class: "key-line" }, "live"), el("span", { class: "quiet" }, `channel ${channel}, drawn as normal distributions, in deviations of the ${known} one`)),
    chart.element,
  );
}
