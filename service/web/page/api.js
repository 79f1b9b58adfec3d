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

/** The same of all channels of one norm; null where that is not told, for the report has the most important ones. */
export async function driftAt(key, name) {
  try {
    const known = await read(`${path(key)}/drift/${encodeURIComponent(name)}?version=${key.version}`, "json");
    return known.mean.length ? known : null;
  } catch (error) {
    if (error instanceof Problem) return null;
    throw error;
  }
}

const IMAGES_PATIENCE = 60_000; // a large image takes its time
const posted = (key, what, body, type) =>
  read(`${path(key)}/versions/${key.version}/${what}`, "json", { method: "POST", headers: type ? { "Content-Type": type } : {}, body }, IMAGES_PATIENCE);
const image = (key, what, file) => posted(key, what, file, file.type || "application/octet-stream");

/** The predictions for one image, and how long they took seen from here. */
export async function predict(key, file, top = 5) {
  const started = performance.now();
  const answer = await image(key, `predict?top_k=${top}`, file);
  return { ...answer, round_trip: performance.now() - started };
}

/** How far one image lies, at each norm, from what the norm knows. */
export const shift = (key, file) => image(key, "drift", file);

/** What the first norms say of the preprocessing, from one image or several. */
export function doctor(key, files) {
  if (files.length === 1) return image(key, "doctor", files[0]);
  const form = new FormData(); // the browser names its boundary
  for (const file of files) form.append("images", file);
  return posted(key, "doctor", form, null);
}
