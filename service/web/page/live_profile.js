// The live profile: what live rows come to over all channels of a norm, beside what training left there.

import { Chart, band, dots, line } from "./chart.js";
import { el, number, term } from "./dom.js";

const WORDS = { mean: "mean ± one standard deviation", delta: "mean δ", lambda: "variance λ", z: "z" };
const MEANINGS = { mean: "live_mean", delta: "drift_delta", lambda: "drift_lambda", z: "drift_z" };
const axis = { range: (_, low, high) => [low - 0.5, high + 0.5], values: (_, splits) => splits.map((split) => (Number.isInteger(split) ? String(split) : "")) };
const edge = line("accent", { width: 1 });
const OVER = { series: [line("band", { width: 0 }), line("band", { width: 0 }), edge, edge, dots("accent")], bands: [band("band", 1, 2)], x: axis };
const ALONE = { series: [dots("accent")], x: axis };

/** A plot over the channels of `norm`, hidden until `show` has what the server tells of all of them. */
export function liveProfile(norm, pick) {
  const select = el("select", { id: "live-profile" }, Object.entries(WORDS).map(([value, words]) => el("option", { value }, words)));
  const [place, about] = [el("div"), el("span")];
  const keys = el("span", { class: "keys" }, el("span", { class: "key-band" }, "training"), el("span", { class: "key-line" }, "live"));
  let [channels, chosen, chart] = [null, 0, null];
  const draw = () => {
    chart = new Chart(described(norm, channels, select.value), { ...(select.value === "mean" ? OVER : ALONE), onPick: pick }, rows(norm, channels, select.value));
    chart.mark([[chosen, "warm", false]]);
    place.replaceChildren(chart.element);
    about.replaceChildren(term(MEANINGS[select.value], "what is that?"));
    keys.hidden = select.value !== "mean";
  };
  select.addEventListener("change", draw);
  const element = el("figure", { class: "over", hidden: true }, el("figcaption", {}, el("label", { for: "live-profile" }, "Channel by channel"), select, about, keys), place);
  const show = (to) => {
    channels = to;
    element.hidden = !channels;
    if (!channels) return;
    if (chart) chart.show(rows(norm, channels, select.value), described(norm, channels, select.value));
    else draw();
  };
  const choose = (to) => {
    chosen = to;
    chart?.mark([[chosen, "warm", false]]);
  };
  return { element, show, choose };
}

function rows(norm, channels, quantity) {
  const at = channels.mean.map((_, channel) => channel);
  if (quantity !== "mean") return [at, channels[quantity]];
  const off = (means, variances, sign) => at.map((i) => (variances?.[i] >= 0 ? means[i] + sign * Math.sqrt(variances[i]) : null));
  const { running_mean: means, running_var: variances } = norm.vectors;
  return [at, off(means, variances, 1), off(means, variances, -1), off(channels.mean, channels.var, 1), off(channels.mean, channels.var, -1), channels.mean];
}

function described(norm, channels, quantity) {
  const known = channels[quantity].filter((value) => value !== null);
  return `Live rows, ${WORDS[quantity]}, for each of ${norm.num_features} channels, from ${number(Math.min(...known), 3)} to ${number(Math.max(...known), 3)}. The slider chooses a channel.`;
}
