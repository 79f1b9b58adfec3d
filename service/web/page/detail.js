// One norm: its flags, its equation with the numbers of one channel, and how its channels are distributed.

import { distributions } from "./distributions.js";
import { el, momentum, number, term } from "./dom.js";
import { equation, journey, numbersOf } from "./equation.js";
import { flagList } from "./flags.js";
import { driftOf } from "./live_rows.js";
import { chip } from "./outcomes.js";
import { profile } from "./profile.js";
import { sampleOf } from "./sample.js";

/** Fills the panel; `onChannel` is told of every channel that the reader chooses. Answers what takes drift reports, tried images and another channel. */
export function showDetail(place, norm, channel, onChannel) {
  const words = el("div", {});
  const pick = (wanted) => {
    const to = Math.min(wanted, norm.num_features - 1);
    picker.show(to);
    choose(to);
    onChannel(to);
  };
  const picker = channels(norm, channel, pick);
  const [live, sample] = [driftOf(norm, pick), sampleOf(norm, pick)];
  const plots = [live, sample, profile(norm, pick), distributions(norm)].filter((plot) => plot !== null);
  const choose = (to) => {
    words.replaceChildren(...ofChannel(norm, to));
    for (const plot of plots) plot.choose(to);
  };
  const [, , ...others] = plots.map(({ element }) => element);
  place.replaceChildren(heading(norm), flagList(norm, pick), facts(norm), picker.element, words, live.element, sample.element, ...others);
  choose(channel);
  place.hidden = false;
  return { drift: live.show, sample: sample.show, pick };
}

const heading = (norm) =>
  el("div", { class: "detail-head" }, el("h3", { id: "detail-title", tabindex: "-1" }, norm.name), chip(norm), el("p", { class: "quiet" }, norm.reason ?? "The network does not call it at inference."));

function facts(norm) {
  const rows = [
    [term("num_features"), norm.num_features],
    [term("eps"), number(norm.eps)],
    [term("momentum"), momentum(norm)],
    [term("num_batches_tracked"), norm.num_batches_tracked === null ? "–" : norm.num_batches_tracked.toLocaleString("en")],
    [term("affine"), norm.affine ? "yes" : "no"],
    [term("track_running_stats"), norm.track_running_stats ? "yes" : "no"],
    ["activation behind", norm.activation ?? "–"],
    [term("folding_error"), number(norm.folding_error, 3)],
    norm.folding_error_at && norm.folding_error_at !== norm.name ? ["seen at", norm.folding_error_at] : null,
  ].filter((row) => row !== null);
  return el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { class: "number" }, String(value)))));
}

function channels(norm, channel, pick) {
  const last = norm.num_features - 1;
  const slider = el("input", { type: "range", min: 0, max: last, value: channel, "aria-label": "Channel, as a slider" });
  const field = el("input", { type: "number", min: 0, max: last, value: channel, id: "channel" });
  const take = (from) => () => {
    const to = Math.min(last, Math.max(0, Math.round(from.valueAsNumber)));
    if (!Number.isNaN(to)) pick(to);
  };
  const show = (to) => {
    slider.value = to;
    if (field !== document.activeElement || Number(field.value) !== to) field.value = to;
  };
  slider.addEventListener("input", take(slider));
  field.addEventListener("input", take(field));
  field.addEventListener("change", () => (field.value = slider.value));
  const element = el("div", { class: "channels" }, el("label", { for: "channel" }, "Channel"), field, slider, el("span", { class: "quiet" }, `0 to ${last}`));
  return { element, show };
}

function ofChannel(norm, channel) {
  const numbers = numbersOf(norm, channel);
  if (numbers) return [el("div", { class: "pair" }, equation(norm, channel, numbers), journey(numbers))];
  return [el("p", {}, "This norm keeps no running statistics: it always uses the batch’s own, so there is nothing to fold.")];
}
