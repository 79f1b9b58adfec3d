// Try it: images by file, drop, paste or drawing; what the model answers, and what its norms say of them.

import * as api from "./api.js";
import { same } from "./address.js";
import { Doctor } from "./doctor.js";
import { Drawing } from "./drawing.js";
import { el, sentence } from "./dom.js";
import { predictions } from "./predictions.js";
import { Sample } from "./sample.js";

const MOST = 16; // images that are looked at together, as many as the server takes

const at = (id) => document.getElementById(id);

export class TryIt {
  // The images that are shown, the version that was asked, and which question is the latest.
  #images = [];
  #key = null;
  #turn = 0;

  /** `model()` tells which version answers, or null; `unwatched()` why nothing looks at its norms, or null; `shifted` takes a sample's report, or null. */
  constructor({ model, unwatched, shifted, colour }) {
    [this.model, this.unwatched, this.shifted] = [model, unwatched, shifted];
    [this.answer, this.preview, this.drop, this.examining] = ["answer", "preview", "drop", "examining"].map(at);
    this.sample = new Sample(at("sample"), colour);
    this.doctor = new Doctor(at("diagnosis"), at("doctor"), () => this.#images, () => this.#key);
    this.drawing = new Drawing(at("drawing"), (image) => this.take([image]));
    this.#listen();
  }

  /** Another version may be open now, of which what was tried is asked again. */
  follow(key) {
    this.drawing.fit(key?.input_shape);
    if (key && this.#images.length && !same(key, this.#key)) this.take(this.#images);
  }

  /** Shows images: the first is answered, and several are looked at together. */
  async take(images) {
    const turn = ++this.#turn;
    const key = this.model();
    if (!same(key, this.#key)) this.#forget();
    [this.#images, this.#key] = [images.slice(0, MOST), key];
    this.#show(images);
    this.doctor.clear();
    this.answer.setAttribute("aria-busy", "true");
    const [isAnswered, shown] = await this.#predicted();
    if (turn !== this.#turn) return;
    this.answer.replaceChildren(...shown);
    this.answer.removeAttribute("aria-busy");
    this.examining.hidden = !isAnswered || this.unwatched() !== null;
    if (!isAnswered) this.#forget();
    else await this.#lookInside(turn);
  }

  async #predicted() {
    try {
      if (!this.#key) throw new api.Problem("no model is being served yet", 0);
      return [true, predictions(await api.predict(this.#key, this.#images[0]))];
    } catch (error) {
      if (!(error instanceof api.Problem)) throw error;
      return [false, [refusal(error, () => this.take(this.#images))]];
    }
  }

  /** What the norms say of the first image, and of several; the prediction stands without. */
  async #lookInside(turn) {
    const why = this.unwatched();
    if (why) return this.#without(why);
    if (this.sample.isEmpty) this.sample.say("Looking at its norms");
    try {
      const report = await api.shift(this.#key, this.#images[0]);
      if (turn !== this.#turn) return;
      this.sample.show(report);
      this.shifted(report);
    } catch (error) {
      if (!(error instanceof api.Problem)) throw error;
      if (turn === this.#turn) this.#without(`Its shift at the norms is not known. ${sentence(error.message)}`);
    }
    if (turn === this.#turn && this.#images.length > 1) this.doctor.examine();
  }

  #without(words) {
    this.sample.say(words);
    this.shifted(null);
  }

  #forget() {
    this.sample.hide();
    this.shifted(null);
  }

  #show(images) {
    const [image] = images;
    const { preview } = this;
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(image);
    preview.alt = `The chosen image, ${image.name}`;
    preview.hidden = !image.type.startsWith("image/");
    preview.onerror = () => (preview.hidden = true);
    const rest = images.length > MOST ? `, of which ${MOST} are looked at` : "";
    at("several").textContent = images.length > 1 ? `The first of ${images.length} images${rest}` : "";
  }

  #listen() {
    const file = at("file");
    const some = (list) => list.length && this.take([...list]);
    file.addEventListener("change", () => {
      const chosen = [...file.files];
      file.value = ""; // so that the same file can be chosen again
      some(chosen);
    });
    addEventListener("paste", (event) => some(event.clipboardData.files));
    addEventListener("dragover", (event) => {
      event.preventDefault();
      this.drop.classList.add("over");
    });
    addEventListener("dragleave", (event) => event.relatedTarget === null && this.drop.classList.remove("over"));
    addEventListener("drop", (event) => {
      event.preventDefault();
      this.drop.classList.remove("over");
      some(event.dataTransfer.files);
    });
  }
}

const refusal = (error, again) => el("div", { class: "refusal" }, el("p", {}, sentence(error.message)), el("button", { type: "button", onclick: again }, "Send again"));
