// Health flags: which norms the server finds odd, how grave that is, and why in words.

import { address } from "./address.js";
import { counted, el, number, term } from "./dom.js";

export const LEVELS = ["error", "warning", "note"];
const NAMED = 4; // norms that the sentence names; more are counted

/** The gravest level of a norm's flags, or "none". */
export const gravest = (norm) => LEVELS.find((level) => norm.flags.some((flag) => flag.level === level)) ?? "none";

/** One sentence for each level that alarms, with the norms concerned; nothing where all is well. */
export function showAlarms(place, key, norms) {
  const lines = LEVELS.slice(0, 2).map((level) => alarm(key, level, norms.filter((norm) => norm.flags.some((flag) => flag.level === level))));
  place.replaceChildren(...lines.filter((line) => line !== null));
}

function alarm(key, level, concerned) {
  if (!concerned.length) return null;
  const links = concerned.slice(0, NAMED).flatMap((norm, i) => [i ? ", " : " ", el("a", { href: address(key, norm.name), "data-norm": norm.name, "data-from": "alarm" }, norm.name)]);
  const more = concerned.length > NAMED ? ` and ${concerned.length - NAMED} more` : "";
  const count = level === "error" ? "an error" : "a warning";
  return el("p", { class: "alarm", "data-tint": `flag-${level}` }, el("strong", {}, `${counted(concerned.length, "norm")} with ${count}:`), links, more);
}

/** All flags of one norm with level, number and limit; `pick` opens a channel. */
export function flagList(norm, pick) {
  if (!norm.flags.length) return el("p", { class: "quiet" }, "No ", term("flags", "health flags"), ".");
  return el("ul", { class: "flags", "aria-label": "Health flags" }, norm.flags.map((flag) => el("li", { "data-tint": `flag-${flag.level}` }, item(flag, pick))));
}

function item(flag, pick) {
  const { channels, count } = flag;
  const links = channels.flatMap((channel, i) => [i ? ", " : " ", el("button", { type: "button", class: "link", onclick: () => pick(channel) }, String(channel))]);
  const listed = channels.length ? [el("span", {}, channels.length === 1 ? "channel" : "channels"), links, count > channels.length ? ` and ${count - channels.length} more` : ""] : [];
  return [
    el("p", {}, el("span", { class: "chip" }, flag.level), " ", term(`flag-${flag.flag}`, flag.flag.replaceAll("_", " ")), " ", el("span", {}, flag.message)),
    el("p", { class: "quiet" }, el("span", { class: "number" }, `${number(flag.value, 3)}, limit ${number(flag.limit, 3)}`), channels.length ? "; " : "", listed),
  ];
}
