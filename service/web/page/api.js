// The server's answers; what goes wrong becomes a Problem that has a sentence to show.

import { sentence } from "./dom.js";
import { another, current, headers } from "./key.js";

/** An error that the server explained (status > 0), or no answer at all (status 0). */
export class Problem extends Error {
  constructor(detail, status) {
    super(detail);
    this.status = status;
  }
}

/** The answer of this server at an address; one that asks for a key is asked again with another. */
async function ask(address, options = {}, patience = 15_000) {
  for (;;) {
    const key = current();
    const response = await fetched(address, { ...options, headers: { ...options.headers, ...headers() } }, patience);
    if (response.ok) return response;
    const problem = await explained(response);
    if (problem.status !== 401 || !(await another(key, sentence(problem.message)))) throw problem;
  }
}

async function fetched(address, options, patience) {
  try {
    return await fetch(address, { ...options, signal: AbortSignal.timeout(patience) });
  } catch (error) {
    throw new Problem(error.name === "TimeoutError" ? "the server took too long" : "the server does not answer", 0);
  }
}

async function explained(response) {
  const body = await response.json().catch(() => null);
  return new Problem(body?.detail ?? body?.title ?? `the server answered ${response.status}`, response.status);
}

/** What the body holds, read as `json` or `text`; a body that breaks off is no answer. */
async function read(address, kind, ...more) {
  const response = await ask(address, ...more);
  try {
    return await response[kind]();
  } catch {
    throw new Problem("the answer broke off", 0);
  }
}

const path = ({ model }) => `/v1/models/${encodeURIComponent(model)}`;

export const models = () => read("/v1/models", "json");
export const metrics = () => read("/metrics", "text");
export const fold = (key) => read(`${path(key)}/fold?version=${key.version}`, "json");
export const layers = (key) => read(`${path(key)}/layers?version=${key.version}`, "json");
export const layer = (key, name) => read(`${path(key)}/layers/${encodeURIComponent(name)}?version=${key.version}`, "json");

/** What is said of a version's live rows; null where the server does not look at any. */
export async function drift(key) {
  try {
    return await read(`${path(key)}/drift?version=${key.version}`, "json");
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** The predictions for one image, and how long they took seen from here. */
export async function predict(key, file, top = 5) {
  const started = performance.now();
  const answer = await read(
    `${path(key)}/versions/${key.version}/predict?top_k=${top}`,
    "json",
    { method: "POST", headers: { "Content-Type": file.type || "application/octet-stream" }, body: file },
    60_000,
  );
  return { ...answer, round_trip: performance.now() - started };
}
