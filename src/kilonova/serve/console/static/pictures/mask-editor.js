// A picture on which one paints what is to be made anew.

import { choice } from "../lib/choice.js";
import { field, h } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { Mask } from "./mask.js";

const MAX_UNDO = 20;
// Stripes are seen on any picture; there are so many across it.
const STRIPES = 70;
const COLOURS = [[168, 67, 26, 165], [255, 240, 230, 165]];

/** `onChange` is called after each stroke, `onGrow` with the share by which the picture is to be wider. */
export class MaskEditor {
  #mask = null;
  #undo = [];
  #at = null; // Where the pointer was last, in pixels of the picture.
  #address = "";

  constructor({ onChange, onGrow }) {
    this.onChange = onChange;
    this.tool = choice("Brush", { paint: "Paint", erase: "Erase" }, "paint", () => {});
    this.size = h("input", { type: "range", min: "1", max: "50", value: "9", on: { input: () => this.#placeBrush() } });
    this.undoButton = button("undo", "Undo", "Undo (Ctrl+Z)", () => this.#back());
    this.grow = h("span", { class: "grow" }, button("grow", "Add a margin", "Add a quarter on every side", () => onGrow(0.25)));
    this.picture = h("img", { alt: "The picture to be changed", draggable: "false" });
    this.canvas = h("canvas", {
      tabindex: "0", role: "img", "aria-describedby": "mask-hint",
      on: {
        pointerdown: (event) => this.#down(event), pointermove: (event) => this.#move(event),
        pointerup: () => this.#up(), pointercancel: () => this.#up(), pointerleave: () => { this.brush.hidden = true; },
        keydown: (event) => this.#key(event), blur: () => { this.brush.hidden = true; },
      },
    });
    this.brush = h("span", { class: "brush", hidden: true });
    this.hint = h("p", { class: "hint", id: "mask-hint" });
    this.stage = h("div", { class: "mask-stage" }, this.picture, this.canvas, this.brush);
    this.element = h("div", { class: "mask-editor" },
      h("div", { class: "mask-tools" }, this.tool.element, field("Brush size", this.size), this.undoButton,
        button("trash", "Clear", "Nothing painted", () => this.#change((mask) => mask.fill(0))),
        button("invert", "Invert", "Swap painted and not", () => this.#change((mask) => mask.invert())), this.grow),
      this.stage, this.hint);
  }

  /** Shows a picture and the Mask that is painted on; `canGrow` says whether it may get a margin. */
  show(picture, mask, canGrow) {
    this.grow.hidden = !canGrow;
    if (mask === this.#mask) return;
    URL.revokeObjectURL(this.#address);
    this.#address = URL.createObjectURL(picture.blob);
    this.#mask = mask;
    this.#undo = [];
    this.#at = null;
    this.picture.src = this.#address;
    this.canvas.width = mask.width;
    this.canvas.height = mask.height;
    this.stage.style.setProperty("--aspect", mask.width / mask.height);
    this.#drawAll();
  }

  get #radius() {
    return Math.max(0.5, (Number(this.size.value) / 200) * Math.max(this.#mask.width, this.#mask.height));
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.#mask.width,
      y: ((event.clientY - box.top) / box.height) * this.#mask.height,
    };
  }

  #down(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.isDown = true;
    this.#remember();
    this.#at = this.#point(event);
    this.#paint(this.#at);
  }

  #move(event) {
    const from = this.isDown ? this.#at : null;
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      const to = this.#point(each);
      if (this.isDown) this.#paint(to);
      this.#at = to;
    }
    if (!from) this.#at = this.#point(event);
    this.#placeBrush();
  }

  #up() {
    if (!this.isDown) return;
    this.isDown = false;
    this.#changed();
  }

  /** From where the pointer was. */
  #paint(to) {
    const value = this.tool.value === "paint" ? 1 : 0;
    this.#draw(this.#mask.line(this.#at.x, this.#at.y, to.x, to.y, this.#radius, value));
  }

  #key(event) {
    const step = event.shiftKey ? 1 : this.#radius;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    const { width, height } = this.#mask;
    this.#at ??= { x: width / 2, y: height / 2 };
    if (by) this.#at = { x: clamp(this.#at.x + by[0], width), y: clamp(this.#at.y + by[1], height) };
    else if (event.key === "[" || event.key === "]") this.size.value = Number(this.size.value) + (event.key === "]" ? 1 : -1);
    else if (event.key === " " || event.key === "Enter") {
      this.#remember();
      this.#paint(this.#at);
      this.#changed();
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.#back();
    else return;
    event.preventDefault();
    this.#placeBrush();
  }

  #placeBrush() {
    this.brush.hidden = this.#at === null;
    if (this.#at === null) return;
    const scale = this.canvas.clientWidth / this.#mask.width;
    const { style } = this.brush;
    style.width = style.height = `${2 * this.#radius * scale}px`;
    style.left = `${this.canvas.offsetLeft + this.#at.x * scale}px`;
    style.top = `${this.canvas.offsetTop + this.#at.y * scale}px`;
  }

  #remember() {
    this.#undo = [...this.#undo, this.#mask.data.slice()].slice(-MAX_UNDO);
  }

  #back() {
    const data = this.#undo.pop();
    if (!data) return;
    this.#mask.data.set(data);
    this.#drawAll();
    this.onChange();
  }

  #change(change) {
    this.#remember();
    change(this.#mask);
    this.#drawAll();
    this.onChange();
  }

  #changed() {
    this.#describe();
    this.onChange();
  }

  #drawAll() {
    this.#draw({ x: 0, y: 0, width: this.#mask.width, height: this.#mask.height });
    this.#describe();
  }

  #describe() {
    const share = this.#mask.share();
    const painted = share === 0 ? "nothing is painted" : `${Math.max(1, Math.round(share * 100))} % is painted`;
    this.canvas.setAttribute("aria-label", `Mask: ${painted}`);
    this.hint.textContent = `Paint what is to be made anew: ${painted}. Arrow keys move the brush, Space paints, [ and ] change its size.`;
    this.undoButton.disabled = this.#undo.length === 0;
  }

  #draw({ x, y, width, height }) {
    if (width === 0 || height === 0) return;
    const image = new ImageData(width, height);
    const stripe = Math.max(1, this.#mask.width / STRIPES);
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) {
        if (!this.#mask.data[(y + row) * this.#mask.width + x + column]) continue;
        const colour = COLOURS[Math.floor((x + column + y + row) / stripe) % 2];
        image.data.set(colour, (row * width + column) * 4);
      }
    }
    this.canvas.getContext("2d").putImageData(image, x, y);
  }
}

/** The mask of a draft's picture, a new one where there is none of its size. */
export function maskFor({ pictures: { image: [picture] }, mask }) {
  if (!picture) return null;
  return mask?.width === picture.width && mask?.height === picture.height ? mask : new Mask(picture.width, picture.height);
}

function button(name, label, title, click) {
  return h("button", { type: "button", class: "quiet", title, on: { click } }, icon(name), label);
}

const clamp = (value, largest) => Math.min(largest, Math.max(0, value));
