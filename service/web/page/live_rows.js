// Live rows at one norm: its score, its channels over what training left there, and the chosen channel's distributions.

import { bells, overlaid } from "./bells.js";
import { el, score, term } from "./dom.js";
import { liveProfile } from "./live_profile.js";
import { worst } from "./worst.js";

/** What takes a drift report, with all channels of this norm where the server tells them, and the chosen channel. */
export function driftOf(norm, pick) {
  const element = el("section", { class: "live-rows", "aria-label": "Live rows at this norm", hidden: true });
  let [report, channels, chosen] = [null, null, 0];
  const [head, one, profile] = [el("div"), el("div"), liveProfile(norm, pick)];
  element.append(head, profile.element, one);
  const drawChannel = () => one.replaceChildren(...channelParts(norm, report, channels, chosen, pick));
  const draw = () => {
    const layer = layerOf(report, norm);
    const state = JSON.stringify([layer, report?.reference, report?.thresholds, channels]);
    if (state === element.dataset.state) return; // so that what the reader holds stays in hand
    element.dataset.state = state;
    element.hidden = !layer;
    profile.show(layer && channels);
    if (!layer) return;
    head.replaceChildren(heading(layer, report));
    drawChannel();
  };
  const choose = (to) => {
    chosen = to;
    profile.choose(to);
    if (layerOf(report, norm)) drawChannel();
  };
  return { element, show: (to, all) => (([report, channels] = [to, all ?? null]), draw()), choose };
}

const layerOf = (report, norm) => report?.layers.find(({ name }) => name === norm.name) ?? null;
const against = (reference) => (reference === "baseline" ? "baseline" : "training");

const heading = (layer, report) =>
  el("h4", {}, term("drift", "Live rows"), el("span", { class: "quiet" }, ` at this norm (${layer.part}): `), el("span", { class: "number" }, score(layer.score, report.thresholds?.[layer.part])));

function channelParts(norm, report, channels, chosen, pick) {
  const layer = layerOf(report, norm);
  return [el("div", { class: "pair" }, worst(layer.worst, chosen, pick), curves(norm, layer, report, channels, chosen))];
}

/** The chosen channel: live over training, and over the baseline where that is what rows are compared with. */
function curves(norm, layer, { reference }, channels, chosen) {
  const moved = layer.worst.find(({ channel }) => channel === chosen);
  if (!channels && moved) return bells(chosen, against(reference), "live", moved);
  if (!channels) return el("p", { class: "quiet" }, "Choose one of the channels that moved most to see its live distribution over the frozen one.");
  const of = (name, kind, mean, variance) => ({ name, kind, mean: mean ?? null, deviation: Math.sqrt(variance ?? NaN) });
  const { running_mean: means, running_var: variances } = norm.vectors;
  return overlaid(
    chosen,
    [
      of("training", "training", means?.[chosen], variances?.[chosen]),
      ...(reference === "baseline" ? [of("baseline", "baseline", channels.reference_mean[chosen], channels.reference_var[chosen])] : []),
      of("live", "seen", channels.mean[chosen], channels.var[chosen]),
    ],
    "in the units of the norm’s input",
  );
}
