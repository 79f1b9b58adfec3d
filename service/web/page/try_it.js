// Try it: one image by file, drop, paste or drawing; the classes that the model sees in it, and how long that took.

import { predict } from "./api.js";
import { Drawing } from "./drawing.js";
import { el, number } from "./dom.js";

/** Connects the panel; `model()` tells which version answers, or null. Answers what takes the shape of its input. */
export function tryIt(model) {
  const [file, drop, preview, answer] = ["file", "drop", "preview", "answer"].map((id) => document.getElementById(id));
  let latest = 0;

  async function send(image) {
    const turn = ++latest;
    const key = model();
    show(preview, image);
    answer.setAttribute("aria-busy", "true");
    try {
      if (!key) throw new Error("no model is being served yet");
      const result = await predict(key, image);
      if (turn === latest) answer.replaceChildren(...predictions(result));
    } catch (error) {
      if (turn === latest) answer.replaceChildren(refusal(error, () => send(image)));
    } finally {
      if (turn === latest) answer.removeAttribute("aria-busy");
    }
  }

  file.addEventListener("change", () => {
    const [image] = file.files;
    file.value = ""; // so that the same file can be chosen again
    if (image) send(image);
  });
  addEventListener("paste", (event) => event.clipboardData.files[0] && send(event.clipboardData.files[0]));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });
  const drawing = new Drawing(document.getElementById("drawing"), send);
  return (shape) => drawing.fit(shape);
}

function show(preview, image) {
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(image);
  preview.alt = `The chosen image, ${image.name}`;
  preview.hidden = !image.type.startsWith("image/");
  preview.onerror = () => (preview.hidden = true);
}

function refusal(error, again) {
  return el("div", { class: "refusal" }, el("p", {}, error.message), el("button", { type: "button", onclick: again }, "Send again"));
}

function predictions({ predictions: [first], timing_ms, round_trip }) {
  return [first.label === undefined ? values(first.values) : classes(first.top ?? [first]), timing(timing_ms, round_trip)];
}

function classes(top) {
  const shown = (score) => (score < 0.0005 ? "< 0.1 %" : `${(100 * score).toFixed(1)} %`);
  return el(
    "ol",
    { class: "classes" },
    top.map(({ label, score }) => {
      const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
      bar.firstChild.style.inlineSize = `${100 * score}%`;
      return el("li", {}, el("span", { class: "label" }, label), bar, el("span", { class: "number" }, shown(score)));
    }),
  );
}

function values(tensor) {
  const flat = tensor.flat(Infinity);
  return el("p", { class: "number" }, flat.slice(0, 12).map((value) => number(value)).join("  ") + (flat.length > 12 ? " …" : ""));
}

/** Where the milliseconds went; what no stage accounts for is the way there and back. */
function timing({ decode, queue, compute, total }, round_trip) {
  const stages = [["decode", decode], ["queue", queue], ["compute", compute], ["the rest", Math.max(0, round_trip - decode - queue - compute)]];
  const bar = el("div", { class: "stages", "aria-hidden": "true" }, stages.map(([name]) => el("span", { "data-stage": name })));
  stages.forEach(([, milliseconds], i) => (bar.children[i].style.flexGrow = milliseconds));
  return el(
    "div",
    { class: "timing" },
    bar,
    el("dl", {}, stages.map(([name, milliseconds]) => el("div", {}, el("dt", { "data-stage": name }, name), el("dd", { class: "number" }, `${milliseconds.toFixed(2)} ms`)))),
    el("p", { class: "quiet" }, `${total.toFixed(2)} ms in the server, ${round_trip.toFixed(1)} ms seen from here`),
  );
}
