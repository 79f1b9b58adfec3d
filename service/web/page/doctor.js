// The doctor: whether images reach the first norms as training saw them, or which preprocessing would fit better.

import * as api from "./api.js";
import { counted, el, number, sentence, term } from "./dom.js";

const ENOUGH = 16; // images, with which it tells subtle faults too
const VERDICTS = { fits: "The preprocessing fits", fault: "A likely fault", unclear: "No clear answer" };

/** Connects the button; `images()` are those that are shown, `model()` the version that looks at them. */
export class Doctor {
  #turn = 0;

  constructor(place, opener, images, model) {
    [this.place, this.said, this.images, this.model] = [place, document.getElementById("diagnosed"), images, model];
    opener.addEventListener("click", () => this.examine());
  }

  /** Forgets a verdict, which was on other images or another model. */
  clear() {
    this.#turn += 1;
    this.place.hidden = true;
    this.place.replaceChildren();
    this.said.textContent = "";
    this.place.removeAttribute("aria-busy");
  }

  async examine() {
    const turn = ++this.#turn;
    this.place.hidden = false;
    if (!this.place.children.length) this.place.replaceChildren(el("p", { class: "quiet" }, "Running the image through likely faults"));
    this.place.setAttribute("aria-busy", "true");
    const shown = await api.doctor(this.model(), this.images()).then(verdict, (error) => refusal(error));
    if (turn !== this.#turn) return;
    this.place.replaceChildren(...shown);
    this.place.removeAttribute("aria-busy");
    this.said.textContent = shown[0].textContent; // the verdict is read out, the table is not
  }
}

function refusal(error) {
  if (!(error instanceof api.Problem)) throw error;
  return [el("p", { class: "quiet" }, `The preprocessing could not be checked. ${sentence(error.message)}`)];
}

function verdict(report) {
  const { verdict: state, fault, meaning, images, fix } = report;
  const surer = images < ENOUGH ? ` ${ENOUGH} or more at once make it surer.` : "";
  const words = el(
    "div",
    { class: "verdict" },
    el("h3", {}, el("span", { class: "state", "data-state": state }, VERDICTS[state] ?? state), fault ? `: ${fault}` : ""),
    " ",
    el("p", {}, sentence(meaning)),
    fix.length ? el("div", {}, el("p", {}, "What to change in ", el("code", {}, "model.toml"), ":"), el("pre", { tabindex: "0" }, ["[input]", ...fix].join("\n"))) : null,
    el("p", { class: "quiet small" }, `From ${counted(images, "image")}.${surer}`),
  );
  return [words, table(report)];
}

/** Every variant with its distance, best first; the bars lie on one scale. */
function table({ variants, likely }) {
  const most = Math.max(...variants.map(({ score }) => score), 1e-9);
  const row = (variant) => {
    const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
    bar.firstChild.style.inlineSize = `${(100 * Math.max(0, variant.score)) / most}%`;
    const kind = variant.name === likely ? "fault" : variant.name === "as configured" ? "configured" : null;
    return el("tr", { "data-kind": kind }, el("th", { scope: "row" }, variant.name), el("td", {}, bar), el("td", { class: "number right" }, number(variant.score, 3)), el("td", { class: "quiet meant" }, variant.meaning));
  };
  const head = [el("th", { scope: "col" }, "read as"), el("th", { scope: "col" }, el("span", { class: "unseen" }, "distance, drawn")), el("th", { scope: "col", class: "right" }, term("doctor", "distance")), el("th", { scope: "col" }, "what that is")];
  return el("table", { class: "variants" }, el("caption", {}, "Distance from what the norms know; the least fits best"), el("thead", {}, el("tr", {}, head)), el("tbody", {}, variants.map(row)));
}
