// The page: asks the server what it serves, shows it, and keeps asking; the address says what is open.

import { address, route, same } from "./address.js";
import * as api from "./api.js";
import { showDetail } from "./detail.js";
import { el, placeMeanings, sentence } from "./dom.js";
import { showDrift } from "./drift.js";
import { showAlarms } from "./flags.js";
import * as key from "./key.js";
import { live } from "./live.js";
import { showModels } from "./models.js";
import { Strip, mark } from "./strip.js";
import { showTable } from "./table.js";
import { TryIt } from "./try_it.js";
import { until } from "./waiting.js";
import { Watch } from "./watch.js";

const CALM_S = 5; // between two looks at a server that is ready
const PATIENCE_S = [1, 2, 4, 5]; // between two tries to reach one that is not

const ids = ["state", "trouble", "models", "legend", "strip", "choice", "colouring", "about", "alarms", "drift", "detail", "table", "live"];
const place = Object.fromEntries(ids.map((id) => [id, document.getElementById(id)]));
const strip = new Strip(place);

// What is known of the server, and what of it is on the page.
const known = { state: null, models: [], norms: [], key: null, opened: null, failures: 0, called: false, sample: null, detail: null };
const watch = new Watch(showLive);
const tryIt = new TryIt({ model: () => known.key, unwatched: () => watch.absence, shifted: showSample, colour: () => strip.choose("sample") });

/** Looks at the server, again and again; what changed there is shown here. */
async function look() {
  let wait = CALM_S;
  try {
    const { state, models } = await api.models();
    const changed = known.failures > 0 || (!known.key && state !== known.state) || JSON.stringify(models) !== JSON.stringify(known.models);
    [known.models, known.state] = [models, state];
    say(state);
    if (changed) await showAll();
    else await watch.look();
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

function say(state) {
  if (place.state.textContent !== state) place.state.textContent = state;
  place.state.dataset.state = state;
}

function trouble(error, wait) {
  place.trouble.hidden = error === null;
  const text = error === null ? "" : `${sentence(error.message)} Trying again every ${wait === 1 ? "second" : `${wait} seconds`}; what is below may be out of date.`;
  if (place.trouble.textContent !== text) place.trouble.textContent = text;
}

/** Shows the model that the address names, or the first. */
async function showAll() {
  const { model, version } = route();
  const named = known.models.find((one) => same(one, { model, version })) ?? known.models.find((one) => one.model === model);
  const chosen = model === undefined ? known.models[0] : named;
  known.key = chosen ?? null;
  known.opened = null;
  watch.begin(known.key);
  tryIt.follow(known.key);
  if (!chosen) {
    showNothing(model);
    return;
  }
  for (const id of ["strip", "table"]) place[id].setAttribute("aria-busy", "true");
  const [fold, { layers }] = await Promise.all([api.fold(chosen), api.layers(chosen)]);
  if (known.key !== chosen) return;
  known.norms = layers;
  showModels(place.models, known.models, chosen, fold);
  strip.show(chosen, layers);
  strip.sample(same(known.sample, chosen) ? known.sample : null);
  showAlarms(place.alarms, chosen, layers);
  showTable(place.table, chosen, layers);
  for (const id of ["models", "strip", "table"]) place[id].removeAttribute("aria-busy");
  await showOpened();
  await watch.look();
}

function showNothing(wanted) {
  const none = known.state === "ready" ? "No model is loaded" : "Models are being read, folded and proven";
  const words = wanted === undefined || !known.models.length ? none : `No model “${wanted}” is served`;
  if (known.models.length) showModels(place.models, known.models, null, null);
  else place.models.replaceChildren(el("p", { class: "quiet" }, words));
  strip.clear(words);
  place.table.replaceChildren(el("p", { class: "quiet" }, words));
  place.alarms.replaceChildren();
  showDrift(place.drift, null);
  place.detail.hidden = true;
}

/** Live rows have come to something, at all norms and over the channels of the one that is open. */
function showLive(report, channels) {
  showDrift(place.drift, report);
  strip.drift(report && report.state !== "off" ? report : null);
  known.detail?.drift(report, channels);
}

/** An image was tried, or there is none any more. */
function showSample(report) {
  known.sample = report;
  strip.sample(report);
  known.detail?.sample(report, known.key);
  mark(known.opened);
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
  if (known.opened === name) {
    if (channel !== undefined) known.detail?.pick(channel);
    return;
  }
  known.opened = name;
  const chosen = known.key;
  place.detail.setAttribute("aria-busy", "true");
  try {
    const detail = await api.layer(chosen, name);
    if (known.opened !== name || known.key !== chosen) return;
    const at = Math.min(route().channel ?? 0, detail.num_features - 1);
    known.detail = showDetail(place.detail, detail, at, (to) => {
      if (known.opened === name && known.key === chosen) history.replaceState(null, "", address(chosen, name, to));
    });
    known.detail.sample(known.sample, chosen);
    bringIntoView();
    await watch.open(name);
  } catch (error) {
    known.opened = null;
    if (!(error instanceof api.Problem)) throw error;
    place.detail.hidden = false;
    place.detail.replaceChildren(el("h3", { id: "detail-title" }, name), el("div", { class: "refusal" }, el("p", {}, sentence(error.message)), el("button", { type: "button", onclick: showOpened }, "Try again")));
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

/** A norm that was opened from the table or an alarm is brought to where the reader is. */
function bringIntoView() {
  if (!known.called) return;
  known.called = false;
  place.detail.scrollIntoView({ block: "nearest" });
  document.getElementById("detail-title")?.focus({ preventScroll: true });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("[data-from]");
  if (!link) return;
  known.called = true;
  if (link.dataset.norm === known.opened) bringIntoView();
});
addEventListener("hashchange", follow);
placeMeanings();
key.connect(() => (known.failures += 1));
look();
live(place.live, () => known.key);
