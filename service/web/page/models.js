// The models: what is served, what became of its norms, and how exact the result is.

import { address, same } from "./address.js";
import { counted, el, number, svg, term } from "./dom.js";

/** One card per served version; the chosen one also shows its parity on an axis. */
export function showModels(place, models, chosen, fold) {
  place.replaceChildren(el("ul", { class: "models" }, models.map((model) => card(model, same(model, chosen), fold))));
}

function card(model, isChosen, fold) {
  const { norms, folded, kept } = model.fold;
  return el(
    "li",
    { class: "card model", "aria-current": isChosen ? "true" : null },
    el(
      "div",
      { class: "model-head" },
      el("h3", {}, el("a", { href: address(model) }, model.model), el("span", { class: "quiet" }, ` version ${model.version}`)),
      el("span", { class: "state", "data-state": model.state }, model.state),
    ),
    facts(model),
    el("div", {}, el("p", { class: "folded" }, el("strong", {}, `${folded} of ${norms}`), ` norms folded${kept ? `, ${kept} kept` : ""}`), squares(folded, norms)),
    isChosen && fold ? parity(model, fold.parity) : parityLine(model.fold),
  );
}

function facts(model) {
  const rows = [
    ["Architecture", model.architecture ?? "exported program"],
    ["Precision", model.precision],
    ["Device", model.device],
    ["Input", model.input_shape.join(" × ")],
    ["Output", model.output_shape.join(" × ")],
    ["Batch", `up to ${model.max_batch}`],
    ["Threads", threads(model)],
  ].filter(([, value]) => value);
  return el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** How many threads compute a batch; nothing on a device that has none. */
function threads(model) {
  return model.threads && `${model.threads}${model.tuned ? ", measured" : ""}`;
}

/** The share of norms that are gone, one piece each. */
function squares(folded, norms) {
  const pieces = Array.from({ length: norms }, (_, i) =>
    svg("rect", { x: 1.06 * i, y: 0, width: 1, height: 1, class: i < folded ? "gone" : "left" }),
  );
  return norms ? svg("svg", { class: "squares", viewBox: `0 0 ${1.06 * norms - 0.06} 1`, preserveAspectRatio: "none", "aria-hidden": "true" }, pieces) : null;
}

/** The same of a model that is not chosen, in a line. */
const parityLine = ({ max_relative_error: served, unfolded_relative_error: unfolded, top1_agreement }) =>
  el("p", { class: "quiet" }, term("parity", "Parity"), `: error ${number(served, 2)}, unfolded ${number(unfolded, 2)}; same top class ${number(100 * top1_agreement, 4)} %`);

/** The errors on a logarithmic axis from 1e-9 to 1: left is exact, right of the tolerance is refused. */
function parity(model, { max_relative_error: served, unfolded_relative_error: unfolded, tolerance, top1_agreement, rows }) {
  const x = (error) => 100 * Math.min(1, Math.max(0, (Math.log10(Math.max(error, 1e-9)) + 9) / 9));
  const axis = svg(
    "svg",
    { class: "parity", viewBox: "0 0 100 12", preserveAspectRatio: "none", role: "img", "aria-label": `Error ${number(served, 2)}, tolerance ${number(tolerance, 2)}` },
    svg("rect", { class: "allowed", x: 0, y: 4, width: x(tolerance), height: 4 }),
    svg("rect", { class: "refused", x: x(tolerance), y: 4, width: 100 - x(tolerance), height: 4 }),
    [["unfolded", unfolded], ["served", served]].map(([name, error]) =>
      svg("line", { class: name, x1: x(error), x2: x(error), y1: 0, y2: 12, "vector-effect": "non-scaling-stroke" }),
    ),
  );
  const entry = (name, words, value) => el("div", {}, el("dt", { class: `key-${name}` }, words), el("dd", { class: "number" }, value));
  return el(
    "div",
    { class: "proof" },
    el("h4", {}, term("parity", "Parity"), el("span", { class: "quiet" }, ` with the unfolded network in float64, on ${counted(rows, "row")}`)),
    axis,
    el(
      "dl",
      {},
      entry("served", "served, folded", number(served, 2)),
      entry("unfolded", `unfolded, ${model.precision}`, number(unfolded, 2)),
      entry("allowed", "tolerance", number(tolerance, 2)),
      entry("agreement", "same top class", `${number(100 * top1_agreement, 4)} %`),
    ),
  );
}
