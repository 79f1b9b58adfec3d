// Elements and numbers. Text enters the page only as text nodes; nothing here can make HTML of it.

const NAMESPACES = { svg: "http://www.w3.org/2000/svg", math: "http://www.w3.org/1998/Math/MathML" };

/** Makes elements of one language: `el("p", {class: "quiet"}, "text", child)`; on* are listeners, null is left out. */
function maker(namespace) {
  return (tag, attributes = {}, ...children) => {
    const element = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null));
    return element;
  };
}

export const el = maker(null);
export const svg = maker(NAMESPACES.svg);
export const math = maker(NAMESPACES.math);

/** A number for people: a few significant digits, a true minus sign, a dash for what is missing. */
export function number(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const plain = value === 0 || (size >= 1e-3 && size < 1e5);
  const text = plain ? String(Number(value.toPrecision(digits))) : value.toExponential(digits - 1);
  return text.replace(/\.?0+e/, "e").replace("e+", "e").replaceAll("-", "−");
}

/** A drift score beside its threshold; what lies below sampling error is not told in digits. */
export function score(value, threshold) {
  if (value === null || value === undefined) return "not watched";
  const written = value < 5e-4 ? "below 0.0005" : number(value, 3);
  return threshold === undefined || threshold === null ? written : `${written} of ${number(threshold, 3)}`;
}

/** What the server says, as a sentence. */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");

/** "1 norm", "5 norms". */
export const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** A norm's momentum for people. */
export const momentum = (norm) => {
  if (norm.momentum !== null) return number(norm.momentum);
  return norm.num_batches_tracked === null ? "–" : "average"; // an average counts its batches
};

/** The name of a quantity, which opens its meaning. */
export function term(key, text = NAMES[key]) {
  return el("button", { type: "button", class: "term", popovertarget: `meaning-${key}`, "aria-haspopup": "dialog" }, text);
}

export const NAMES = {
  running_mean: "running mean",
  running_var: "running variance",
  weight: "weight γ",
  bias: "bias β",
  scale: "scale",
  shift: "shift",
  num_features: "channels",
  affine: "learns γ and β",
  track_running_stats: "running statistics",
  eps: "eps",
  momentum: "momentum",
  num_batches_tracked: "tracked batches",
  parity: "parity",
  activation: "activation",
  folding_error: "folding error",
};
export const VECTORS = ["running_mean", "running_var", "weight", "bias", "scale", "shift"];

/** Puts an opened meaning beside the name that opened it. */
export function placeMeanings() {
  let opener = null;
  document.addEventListener("click", (event) => (opener = event.target.closest?.("[popovertarget]") ?? opener), true);
  for (const meaning of document.querySelectorAll("[popover]")) {
    meaning.addEventListener("toggle", (event) => {
      if (event.newState !== "open" || !opener) return;
      const at = opener.getBoundingClientRect();
      const { width, height } = meaning.getBoundingClientRect();
      const below = at.bottom + 8 + height <= innerHeight;
      // Measured on the page, not on the window, so that it moves along when the page is scrolled.
      meaning.style.left = `${scrollX + Math.max(8, Math.min(at.left, document.documentElement.clientWidth - width - 8))}px`;
      meaning.style.top = `${scrollY + (below ? at.bottom + 8 : Math.max(8, at.top - height - 8))}px`;
    });
  }
}
