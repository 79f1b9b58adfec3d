// The page: asks the server what it serves, shows it, and keeps asking; the address says what is open.

import * as api from "./api.js";
import { showDetail } from "./detail.js";
import { el, placeMeanings } from "./dom.js";
import { address, same, showModels } from "./models.js";
import { mark, showLegend, showStrip, showTable } from "./norms.js";
import { tryIt } from "./try_it.js";

const CALM_S = 5; // between two looks at a server that is ready
const PATIENCE_S = [1, 2, 4, 5]; // between two tries to reach one that is not

const place = Object.fromEntries(["state", "trouble", "models", "legend", "strip", "detail", "table"].map((id) => [id, document.getElementById(id)]));

// What is known of the server, and what of it is on the page.
const known = { models: [], norms: [], key: null, opened: null, failures: 0, called: false };

/** `#/model/version/norm/channel`, each part optional from the right. */
function route() {
  if (!location.hash.startsWith("#/")) return {};
  try {
    const [model, version, norm, channel] = location.hash.slice(2).split("/").map(decodeURIComponent);
    return { model, version: Number(version), norm, channel: Number(channel) || 0 };
  } catch {
    return {}; // an address that nobody's link made
  }
}

/** Looks at the server, again and again; what changed there is shown here. */
async function look() {
  let wait = CALM_S;
  try {
    const { state, models } = await api.models();
    const changed = known.failures > 0 || JSON.stringify(models) !== JSON.stringify(known.models);
    known.models = models;
    say(state);
    if (changed) await showAll();
    known.failures = 0;
    trouble(null);
    if (state !== "ready") wait = 1;
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    wait = PATIENCE_S[Math.min(known.failures, PATIENCE_S.length - 1)];
    known.failures += 1;
    say(error.status ? "error" : "no answer");
    trouble(error, wait);
  }
  await until(wait);
  look();
}

/** Waits for so many seconds, and as long as nobody looks at the page. */
async function until(seconds) {
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

function say(state) {
  if (place.state.textContent !== state) place.state.textContent = state;
  place.state.dataset.state = state;
}

function trouble(error, wait) {
  place.trouble.hidden = error === null;
  const text = error === null ? "" : `${sentence(error.message)} Trying again every ${wait === 1 ? "second" : `${wait} seconds`}; what is below may be out of date.`;
  if (place.trouble.textContent !== text) place.trouble.textContent = text;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + ".";

/** Shows the model that the address names, or the first. */
async function showAll() {
  const { model, version } = route();
  const named = known.models.find((one) => same(one, { model, version })) ?? known.models.find((one) => one.model === model);
  const chosen = model === undefined ? known.models[0] : named;
  known.key = chosen ?? null;
  known.opened = null;
  if (!chosen) {
    showNothing(model);
    return;
  }
  const [fold, { layers }] = await Promise.all([api.fold(chosen), api.layers(chosen)]);
  if (known.key !== chosen) return;
  known.norms = layers;
  showModels(place.models, known.models, chosen, fold);
  showLegend(place.legend, layers);
  showStrip(place.strip, chosen, layers);
  showTable(place.table, chosen, layers);
  for (const id of ["models", "strip", "table"]) place[id].removeAttribute("aria-busy");
  await showOpened();
}

function showNothing(wanted) {
  const words = wanted === undefined || !known.models.length ? "Models are being read, folded and proven" : `No model “${wanted}” is served`;
  if (known.models.length) showModels(place.models, known.models, null, null);
  else place.models.replaceChildren(el("p", { class: "quiet" }, words));
  for (const id of ["strip", "table"]) place[id].replaceChildren(el("p", { class: "quiet" }, words));
  place.legend.replaceChildren();
  place.detail.hidden = true;
}

/** Opens the norm that the address names, or the first. */
async function showOpened() {
  const { norm, channel } = route();
  const name = norm ?? known.norms[0]?.name;
  mark(name);
  if (name === undefined) {
    place.detail.hidden = true;
    return;
  }
  if (known.opened === name) return;
  known.opened = name;
  const key = known.key;
  place.detail.setAttribute("aria-busy", "true");
  try {
    const detail = await api.layer(key, name);
    if (known.opened !== name || known.key !== key) return;
    const at = Math.min(channel ?? 0, detail.num_features - 1);
    showDetail(place.detail, detail, at, (to) => {
      if (known.opened === name && known.key === key) history.replaceState(null, "", address(key, name, to));
    });
    bringIntoView();
  } catch (error) {
    known.opened = null;
    if (!(error instanceof api.Problem)) throw error;
    place.detail.hidden = false;
    place.detail.replaceChildren(el("div", { class: "refusal" }, el("p", {}, sentence(error.message)), el("button", { type: "button", onclick: showOpened }, "Try again")));
  } finally {
    place.detail.removeAttribute("aria-busy");
  }
}

/** The address changed: another model, or another norm of the same one. */
async function follow() {
  const { model, version } = route();
  const stays = known.key && (model === undefined ? same(known.models[0], known.key) : same({ model, version }, known.key));
  try {
    await (stays ? showOpened() : showAll());
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    trouble(error, 1);
    known.failures += 1; // the next look shows all of it again
  }
}

/** A norm that was opened from the table is brought to where the reader is. */
function bringIntoView() {
  if (!known.called) return;
  known.called = false;
  place.detail.scrollIntoView({ block: "nearest" });
  document.getElementById("detail-title")?.focus({ preventScroll: true });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("[data-from=table]");
  if (!link) return;
  known.called = true;
  if (link.dataset.norm === known.opened) bringIntoView();
});
addEventListener("hashchange", follow);
placeMeanings();
tryIt(() => known.key);
look();
