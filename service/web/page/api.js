// The server's answers; what goes wrong becomes a Problem that has a sentence to show.

/** An error that the server explained (status > 0), or no answer at all (status 0). */
export class Problem extends Error {
  constructor(detail, status) {
    super(detail);
    this.status = status;
  }
}

/** The JSON at an address of this server. */
export async function ask(address, options = {}, patience = 15_000) {
  let response;
  try {
    response = await fetch(address, { ...options, signal: AbortSignal.timeout(patience) });
  } catch (error) {
    throw new Problem(error.name === "TimeoutError" ? "the server took too long" : "the server does not answer", 0);
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  throw new Problem(body?.detail ?? body?.title ?? `the server answered ${response.status}`, response.status);
}

const path = ({ model }) => `/v1/models/${encodeURIComponent(model)}`;

export const models = () => ask("/v1/models");
export const fold = (key) => ask(`${path(key)}/fold?version=${key.version}`);
export const layers = (key) => ask(`${path(key)}/layers?version=${key.version}`);
export const layer = (key, name) => ask(`${path(key)}/layers/${encodeURIComponent(name)}?version=${key.version}`);

/** The predictions for one image, and how long they took seen from here. */
export async function predict(key, file, top = 5) {
  const started = performance.now();
  const answer = await ask(
    `${path(key)}/versions/${key.version}/predict?top_k=${top}`,
    { method: "POST", headers: { "Content-Type": file.type || "application/octet-stream" }, body: file },
    60_000,
  );
  return { ...answer, round_trip: performance.now() - started };
}
