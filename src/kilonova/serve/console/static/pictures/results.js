// The pictures that came of a request, and what they took.

import { h } from "../lib/dom.js";
import { dollars, plural, seconds } from "../lib/format.js";
import { icon } from "../lib/icons.js";
import { compare } from "./compare.js";
import { readMetadata } from "./png.js";
import { taskOf } from "./tasks.js";

/** `onUse(blob)` takes a picture as the next one's input, `onSeed(number)` a seed. */
export class Results {
  #addresses = [];

  constructor({ onUse, onSeed }) {
    this.onUse = onUse;
    this.onSeed = onSeed;
    this.element = h("section", { class: "results", "aria-label": "Results", hidden: true });
  }

  /** Shows an entry of the history, nothing for null. */
  show(entry) {
    this.#addresses.forEach((address) => URL.revokeObjectURL(address));
    this.#addresses = [];
    this.element.hidden = entry === null;
    if (entry === null) return;
    const before = isEdit(entry.draft) ? this.#address(entry.draft.pictures.image[0].blob) : null;
    const figures = entry.pictures.map((blob, index) => this.#figure(entry, blob, index, before));
    if (entry.mask) figures.push(h("figure", {}, h("img", { src: this.#address(entry.mask), alt: "The mask that was used" }),
      h("figcaption", {}, h("span", { class: "muted" }, "mask"))));
    const facts = h("dl", { class: "facts" }, this.#facts(entry));
    this.element.replaceChildren(h("header", {}, h("h2", {}, entry.draft.text.trim() || taskOf(entry.draft).title), facts),
      h("div", { class: `result-grid of-${Math.min(figures.length, 3)}` }, figures));
    readMetadata(entry.pictures[0]).then((made) => {
      if (!made) return;
      const size = made.native_size.replace("x", " × ");
      facts.append(...fact("Drawn", `drawn at ${size} in ${plural(made.num_inference_steps, "step")}`, "drawn"));
    }, () => {});
  }

  #figure({ draft, size: [width, height] }, blob, index, before) {
    const address = this.#address(blob);
    const alt = draft.text.trim() || `Result ${index + 1}`;
    const seed = draft.seed === null || draft.task === "BACKGROUND_REMOVAL" ? null : draft.seed + index;
    const save = h("a", { class: "button quiet", href: address, download: `picture-${seed ?? index + 1}.png` }, icon("download"), "Download");
    return h("figure", { class: draft.task === "BACKGROUND_REMOVAL" && "see-through" },
      before ? compare(before, address, alt, width, height) : h("img", { src: address, alt, width, height }),
      h("figcaption", {}, seed === null ? h("span", {}) : h("button", {
        type: "button", class: "quiet", title: "Use this seed again", on: { click: () => this.onSeed(seed) },
      }, `seed ${seed}`), h("span", { class: "actions" }, save, h("button", {
        type: "button", class: "quiet", on: { click: () => this.onUse(blob) },
      }, icon("edit"), "Use as input"))));
  }

  #facts({ draft, pictures, duration, cost, size }) {
    return [
      ...fact("Pictures", plural(pictures.length, "picture"), "count"),
      ...fact("Size", `${size[0]} × ${size[1]}`, "size"),
      ...(draft.quality === "premium" && draft.task !== "BACKGROUND_REMOVAL" ? fact("Quality", "premium", "quality") : []),
      ...fact("Time", seconds(duration), "time"),
      ...(cost === null ? [] : fact("Cost", dollars(cost), "cost")),
    ];
  }

  #address(blob) {
    this.#addresses.push(URL.createObjectURL(blob));
    return this.#addresses.at(-1);
  }
}

/** Whether something of the given picture is still there, so that the two can be compared. */
const isEdit = (draft) => ["INPAINTING", "OUTPAINTING", "VIRTUAL_TRY_ON"].includes(draft.task);

function fact(name, value, id) {
  return [h("div", { data: { fact: id } }, h("dt", { class: "offscreen" }, name), h("dd", {}, value))];
}
