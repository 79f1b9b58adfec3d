// Live: how much the chosen version answers, how quickly and in what batches, from /metrics.

import * as api from "./api.js";
import { same } from "./address.js";
import { Chart, bars, line } from "./chart.js";
import { el, number, term } from "./dom.js";
import { between, quantile, reading } from "./exposition.js";
import { until } from "./waiting.js";

const EVERY_S = 2;
const KEPT = 120; // readings: four minutes
const LEAST_S = 60; // on the axis of time
const FEWEST = 4; // buckets of batch sizes on the axis

/** Connects the panel and keeps it up to date; `model()` tells the version, or null. */
export async function live(place, model) {
  const panel = new Panel(place);
  for (;;) {
    const key = model();
    try {
      if (key) panel.add(key, reading(await api.metrics(), key, performance.now() / 1000));
    } catch (error) {
      if (!(error instanceof api.Problem)) throw error;
      panel.fail(error.message);
    }
    await until(key ? EVERY_S : 0.2);
  }
}

class Panel {
  // Of which version, its readings, and what came of each but the first.
  #key = null;
  #readings = [];
  #rates = [];

  constructor(place) {
    const past = { range: () => [Math.min(-LEAST_S, this.oldest), 0], words: (second) => (second ? `−${-second} s` : "now") };
    const fromZero = { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] };
    const sparse = { points: { show: true, size: 4 } };
    this.numbers = el("dl", { class: "facts" });
    this.trouble = el("p", { class: "refusal", hidden: true });
    this.throughput = new Chart("Throughput", { series: [line("accent"), line("warm", { dash: [5, 3] })], x: past, y: fromZero }, [[], [], []]);
    this.latency = new Chart("Latency", { series: [line("accent", sparse), line("warm", { ...sparse, dash: [5, 3] })], x: past, y: fromZero }, [[], [], []]);
    this.uppers = [""];
    this.oldest = 0;
    this.batches = new Chart("Batch sizes", { series: [bars("accent")], x: { range: () => [-0.6, this.uppers.length - 0.4], values: (_, splits) => splits.map((split) => this.uppers[split] ?? "") }, y: fromZero }, [[], []]);
    place.replaceChildren(
      this.trouble,
      this.numbers,
      el(
        "div",
        { class: "charts" },
        figure(this.throughput, term("throughput", "Throughput"), ["rows per second", "requests per second"]),
        figure(this.latency, term("latency", "Latency"), ["median, ms", "99th percentile, ms"]),
        figure(this.batches, term("batch_rows", "Rows in a batch"), []),
      ),
    );
    place.removeAttribute("aria-busy");
  }

  add(key, latest) {
    const last = this.#readings.at(-1);
    if (!same(key, this.#key) || (last && latest.requests < last.requests)) this.#begin(key); // another one, or started anew
    else if (last) this.#rates.push(rates(last, latest));
    this.#readings = [...this.#readings, latest].slice(-KEPT);
    this.#rates = this.#rates.slice(-KEPT);
    this.trouble.hidden = true;
    this.#draw(latest);
  }

  fail(words) {
    this.trouble.textContent = `Nothing new is known: ${words}.`;
    this.trouble.hidden = false;
  }

  #begin(key) {
    this.#key = key;
    this.#readings = [];
    this.#rates = [];
  }

  #draw(latest) {
    const counted = between(this.#readings[0].batchRows, latest.batchRows);
    const now = this.#rates.at(-1);
    this.numbers.replaceChildren(...facts(now, latest).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { class: "number" }, value))));
    const at = this.#rates.map((rate) => rate.at - latest.at);
    this.oldest = at[0] ?? 0;
    const of = (name) => this.#rates.map((rate) => rate[name]);
    this.throughput.show([at, of("rows"), of("requests")], `Throughput: now ${number(now?.rows, 3)} rows and ${number(now?.requests, 3)} requests per second`);
    this.latency.show([at, of("median"), of("p99")], `Latency: now ${number(now?.median, 3)} milliseconds in the median, ${number(now?.p99, 3)} in the 99th percentile`);
    this.#drawBatches(counted);
  }

  #drawBatches(counted) {
    const most = counted.findLastIndex(([, count]) => count > 0);
    const seen = counted.slice(0, Math.max(most + 1, FEWEST));
    this.uppers = seen.map(([upper], i) => (i && seen[i - 1][0] + 1 < upper ? `≤${number(upper)}` : number(upper)));
    const words = seen.filter(([, count]) => count > 0).map(([upper, count]) => `${count} up to ${number(upper)}`);
    this.batches.show([seen.map((_, i) => i), seen.map(([, count]) => count)], `Batches by their rows: ${words.join(", ") || "none yet"}`);
  }
}

/** What happened between two readings, per second; latencies in milliseconds, null where nothing was answered. */
function rates(earlier, later) {
  const per = (name) => (later[name] - earlier[name]) / (later.at - earlier.at);
  const seconds = between(earlier.seconds, later.seconds);
  const milliseconds = (share) => { const value = quantile(seconds, share); return value === null ? null : 1000 * value; };
  const batches = later.batches - earlier.batches;
  return { at: later.at, rows: per("rows"), requests: per("requests"), refused: per("requests") - per("answered"), median: milliseconds(0.5), p99: milliseconds(0.99), batch: batches ? (later.rows - earlier.rows) / batches : null };
}

function facts(now, latest) {
  return [
    [term("throughput", "rows per second"), number(now?.rows, 3)],
    ["requests per second", number(now?.requests, 3)],
    ["not answered, per second", number(now?.refused, 3)],
    [term("latency", "median"), milliseconds(now?.median)],
    [term("latency", "99th percentile"), milliseconds(now?.p99)],
    [term("batch_rows", "rows in a batch"), number(now?.batch, 3)],
    [term("waiting_rows", "waiting rows"), number(latest.waiting)],
    ["workers", number(latest.workers)],
  ];
}

const milliseconds = (value) => (value === null || value === undefined ? "–" : `${number(value, 3)} ms`);

const figure = (chart, name, keys) =>
  el("figure", {}, el("figcaption", {}, name, keys.map((words, i) => el("span", { class: i ? "key-dashed" : "key-line" }, words))), chart.element);
