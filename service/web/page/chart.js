// Charts: uPlot in a box that it fills, in the page's colours, with words for those who do not see it.

import uPlot from "./vendor/uplot/uPlot.esm.js";
import { el, number } from "./dom.js";

const root = document.documentElement;
/** A colour of the page by its name, as the style sheet has it now. */
const ink = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

const drawn = new Set();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((chart) => chart.redraw(true)));

// A chart is drawn when its box first has a size, and ended when the box leaves the page.
const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) target.chart.fit(contentRect);
});

/** Marks of one series: a line, bars that touch, or points alone. */
export const line = (stroke, more = {}) => ({ stroke: () => ink(stroke), width: 1.75, points: { show: false }, ...more });
export const bars = (fill) => ({ fill: () => ink(fill), stroke: () => ink(fill), width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [1, Infinity], gap: 1 }) });
export const dots = (fill) => ({ stroke: () => ink(fill), paths: () => null, points: { show: true, size: 5, width: 0, fill: () => ink(fill) } });
export const band = (fill, upper, lower) => ({ series: [upper, lower], fill: () => ink(fill) });

export class Chart {
  /**
   * `series` are those above, one for each row of the data but the first, which is x; `x` and `y` may say
   * `range`, `words` (from a value to its text), `time`, `log`; `onPick` is told of the x that was clicked.
   */
  constructor(label, { series, bands = [], x = {}, y = {}, onPick = null, onHover = null }, data) {
    this.element = el("div", { class: "chart", role: "img", "aria-label": label });
    this.element.chart = this;
    this.element.toggleAttribute("data-pick", onPick !== null);
    this.options = {
      legend: { show: false },
      cursor: { show: Boolean(onPick ?? onHover), y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: scale(x), y: scale(y) },
      axes: [axis(x, 54), { ...axis(y, 28), size: 46 }],
      series: [{}, ...series],
      bands,
      padding: [8, 10, 0, 0],
      hooks: {
        draw: [() => this.#drawMarks()],
        ready: [(plot) => onPick && plot.over.addEventListener("click", () => plot.cursor.idx !== null && onPick(plot.data[0][plot.cursor.idx]))],
        setCursor: [(plot) => onHover?.(plot.cursor.idx)],
      },
    };
    this.data = data;
    this.marks = [];
    this.plot = null;
    sizes.observe(this.element);
  }

  /** Draws other numbers, and other words for them. */
  show(data, label) {
    this.data = data;
    this.element.setAttribute("aria-label", label);
    this.plot?.setData(data);
  }

  /** Upright lines: `[[x, colour, isDashed], ...]`. */
  mark(marks) {
    this.marks = marks;
    this.redraw();
  }

  /** `anew` asks uPlot for the colours of its series again, which it keeps with their paths. */
  redraw(anew = false) {
    this.plot?.redraw(anew, true);
  }

  fit({ width, height }) {
    if (!this.element.isConnected) {
      this.#end();
    } else if (width > 0 && height > 0) {
      if (this.plot) this.plot.setSize({ width, height });
      else this.plot = new uPlot({ ...this.options, width, height }, this.data, this.element);
      drawn.add(this);
    }
  }

  #end() {
    sizes.unobserve(this.element);
    drawn.delete(this);
    this.plot?.destroy();
    this.plot = null;
  }

  #drawMarks() {
    const { ctx, bbox } = this.plot ?? {};
    if (!ctx) return;
    for (const [at, colour, isDashed] of this.marks.filter(([value]) => Number.isFinite(value))) {
      const x = this.plot.valToPos(at, "x", true);
      if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
      ctx.save();
      ctx.beginPath();
      ctx.setLineDash(isDashed ? [3 * devicePixelRatio, 3 * devicePixelRatio] : []);
      ctx.lineWidth = (isDashed ? 1 : 2) * devicePixelRatio;
      ctx.strokeStyle = ink(colour);
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.restore();
    }
  }
}

const scale = ({ time = false, log = false, range }) => ({ time, distr: log ? 3 : 1, ...(range ? { range } : {}) });

const axis = ({ words, time, values }, space) => ({
  stroke: () => ink("quiet"),
  font: "11px system-ui, sans-serif",
  space,
  size: 26,
  gap: 3,
  grid: { stroke: () => ink("line"), width: 1 },
  ticks: { show: false },
  ...(time ? {} : { values: values ?? ((plot, splits) => splits.map((split) => (split === null ? "" : (words ?? short)(split)))) }),
});

const short = (value) => number(value, 3);
