// The exposition: what /metrics says, in Prometheus' text format, as samples that can be summed.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { n: "\n" };

/** All samples of a text: `[{name, labels, value}]`. */
export function samples(text) {
  return text.split("\n").flatMap((line) => {
    const [, name, labels, value] = SAMPLE.exec(line) ?? [];
    return name ? [{ name, labels: labelled(labels ?? ""), value: Number(value) }] : [];
  });
}

const labelled = (text) => Object.fromEntries([...text.matchAll(LABEL)].map(([, name, value]) => [name, value.replace(/\\(.)/g, (_, letter) => ESCAPES[letter] ?? letter)]));

/** What is known of one version at one moment: counters since the start, and gauges of now. */
export function reading(text, { model, version }, at) {
  const all = samples(text);
  const of = (name, wanted = {}) => all.filter((one) => one.name === `foldserve_${name}` && Object.entries(wanted).every(([label, value]) => one.labels[label] === value));
  const sum = (name, wanted) => of(name, wanted).reduce((total, { value }) => total + value, 0);
  const versions = { model, version: String(version) };
  return {
    at,
    requests: sum("requests_total", { model }),
    answered: sum("requests_total", { model, outcome: "ok" }),
    rows: sum("rows_total", versions),
    batches: sum("batch_rows_count", versions),
    batchRows: buckets(of("batch_rows_bucket", versions)),
    seconds: buckets(of("stage_seconds_bucket", { model, stage: "total" })),
    waiting: sum("waiting_rows"),
    workers: sum("workers"),
  };
}

const buckets = (found) => found.map(({ labels, value }) => [Number(labels.le.replace("+Inf", "Infinity")), value]).sort(([one], [other]) => one - other);

/** How many values fell into each bucket between two readings: `[[upper, count], ...]`. */
export function between(earlier, later) {
  const before = new Map(earlier);
  const risen = later.map(([upper, count]) => [upper, count - (before.get(upper) ?? 0)]);
  return risen.map(([upper, count], i) => [upper, count - (i ? risen[i - 1][1] : 0)]);
}

/** A quantile of counted values, spread evenly inside its bucket; null where there are none. */
export function quantile(counted, share) {
  const wanted = share * counted.reduce((total, [, count]) => total + count, 0);
  let [seen, low] = [0, 0];
  for (const [upper, count] of counted) {
    if (count > 0 && seen + count >= wanted) return upper === Infinity ? low : low + ((upper - low) * (wanted - seen)) / count;
    [seen, low] = [seen + count, upper];
  }
  return null;
}
