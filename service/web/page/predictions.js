// Predictions: the classes that a model sees in an image, and where the milliseconds went.

import { el, number } from "./dom.js";

/** What is shown of one answer: its first row. */
export function predictions({ predictions: [first], timing_ms, round_trip }) {
  return [first.label === undefined ? values(first.values) : classes(first.top ?? [first]), timing(timing_ms, round_trip)];
}

function classes(top) {
  const shown = (score) => (score < 0.0005 ? "< 0.1 %" : `${(100 * score).toFixed(1)} %`);
  return el(
    "ol",
    { class: "classes" },
    top.map(({ label, score }) => {
      const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
      bar.firstChild.style.inlineSize = `${100 * score}%`;
      return el("li", {}, el("span", { class: "label" }, label), bar, el("span", { class: "number" }, shown(score)));
    }),
  );
}

function values(tensor) {
  const flat = tensor.flat(Infinity);
  return el("p", { class: "number" }, flat.slice(0, 12).map((value) => number(value)).join("  ") + (flat.length > 12 ? " …" : ""));
}

/** Where the milliseconds went; what no stage accounts for is the way there and back. */
function timing({ decode, queue, compute, total }, round_trip) {
  const stages = [["decode", decode], ["queue", queue], ["compute", compute], ["the rest", Math.max(0, round_trip - decode - queue - compute)]];
  const bar = el("div", { class: "stages", "aria-hidden": "true" }, stages.map(([name]) => el("span", { "data-stage": name })));
  stages.forEach(([, milliseconds], i) => (bar.children[i].style.flexGrow = milliseconds));
  return el(
    "div",
    { class: "timing" },
    bar,
    el("dl", {}, stages.map(([name, milliseconds]) => el("div", {}, el("dt", { "data-stage": name }, name), el("dd", { class: "number" }, `${milliseconds.toFixed(2)} ms`)))),
    el("p", { class: "quiet" }, `${total.toFixed(2)} ms in the server, ${round_trip.toFixed(1)} ms seen from here`),
  );
}
