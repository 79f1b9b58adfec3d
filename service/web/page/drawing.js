// The drawing pad: for models that take one small channel, light ink on dark ground.

const SIDE = 256; // of the canvas at most, before it is averaged down to the model's input
const LARGEST = 64; // inputs that a hand can draw pixel by pixel
const STROKE = 0.11; // of the side

/** Connects the pad; `send` takes what was drawn as an image file of the input's size. */
export class Drawing {
  #shape = null;
  #pen = null; // the pointer that draws

  constructor(place, send) {
    this.place = place;
    this.send = send;
    this.canvas = place.querySelector("canvas");
    this.ink = this.canvas.getContext("2d", { willReadFrequently: true });
    this.canvas.addEventListener("pointerdown", (event) => this.#down(event));
    this.canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, (event) => this.#up(event));
    place.querySelector("button").addEventListener("click", () => this.clear());
  }

  /** Shows the pad where an input `[C, H, W]` can be drawn. */
  fit(shape) {
    const isDrawable = shape?.length === 3 && shape[0] === 1 && Math.max(shape[1], shape[2]) <= LARGEST;
    this.place.hidden = !isDrawable;
    if (!isDrawable || String(shape) === String(this.#shape)) return;
    this.#shape = shape;
    this.canvas.width = shape[2] * this.#times;
    this.canvas.height = shape[1] * this.#times;
    this.clear();
  }

  clear() {
    this.ink.fillStyle = "black";
    this.ink.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  get #times() {
    return Math.floor(SIDE / Math.max(this.#shape[1], this.#shape[2]));
  }

  #at(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [((event.clientX - left) * this.canvas.width) / width, ((event.clientY - top) * this.canvas.height) / height];
  }

  #down(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.#pen = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    Object.assign(this.ink, { strokeStyle: "white", lineCap: "round", lineJoin: "round", lineWidth: STROKE * this.canvas.width });
    this.ink.beginPath();
    this.ink.moveTo(...this.#at(event));
    this.#move(event);
  }

  #move(event) {
    if (event.pointerId !== this.#pen) return;
    this.ink.lineTo(...this.#at(event));
    this.ink.stroke();
  }

  #up(event) {
    if (event.pointerId !== this.#pen) return;
    this.#pen = null;
    this.#averaged().toBlob((blob) => this.send(new File([blob], "drawing.png", { type: "image/png" })), "image/png");
  }

  /** The drawing in the input's size: each pixel the mean of its block. */
  #averaged() {
    const [, height, width] = this.#shape;
    const times = this.#times;
    const { data } = this.ink.getImageData(0, 0, width * times, height * times);
    const small = new ImageData(width, height);
    for (let pixel = 0; pixel < width * height; pixel += 1) {
      const [row, column] = [Math.floor(pixel / width) * times, (pixel % width) * times];
      let sum = 0;
      for (let y = row; y < row + times; y += 1) for (let x = column; x < column + times; x += 1) sum += data[4 * (y * width * times + x)];
      small.data.set([sum / times ** 2, sum / times ** 2, sum / times ** 2, 255], 4 * pixel);
    }
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    canvas.getContext("2d").putImageData(small, 0, 0);
    return canvas;
  }
}
