// Where pictures are given: by button, or by dropping them.

import { h } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { readPicture } from "./given.js";

/** A place for up to `max` pictures. `onChange` gets the new list. */
export class Slot {
  #pictures = [];
  #isLarge = null; // Before anything is shown.
  #addresses = [];

  constructor({ title, max, required = false, onChange }) {
    this.max = max;
    this.onChange = onChange;
    this.input = h("input", {
      type: "file", accept: "image/*", multiple: max > 1, hidden: true, "aria-label": title,
      on: { change: () => { this.add([...this.input.files]); this.input.value = ""; } },
    });
    this.choose = h("button", { type: "button", class: "choose", on: { click: () => this.input.click() } },
      icon("picture"), h("span", {}, "Choose"));
    this.choose.setAttribute("aria-label", `Choose: ${title}`);
    this.problem = h("p", { class: "field-problem", role: "alert" });
    this.thumbnails = h("ul", { class: "thumbnails" });
    this.element = h("div", {
      class: "slot", role: "group", "aria-label": title,
      on: { dragover: (event) => this.#over(event), dragleave: () => this.#mark(false), drop: (event) => this.#drop(event) },
    }, h("p", { class: "slot-title" }, title, required ? "" : h("small", {}, " if wanted")), this.thumbnails, this.choose,
    this.input, this.problem);
  }

  /** Shows `pictures`; where `large`, without thumbnails, for the picture is shown elsewhere. */
  show(pictures, large) {
    if (pictures === this.#pictures && large === this.#isLarge) return;
    this.#pictures = pictures;
    this.#isLarge = large;
    this.#addresses.forEach((address) => URL.revokeObjectURL(address));
    this.#addresses = large ? [] : pictures.map(({ blob }) => URL.createObjectURL(blob));
    this.thumbnails.hidden = pictures.length === 0;
    this.thumbnails.replaceChildren(...pictures.map(({ width, height }, index) => h("li", {},
      !large && h("img", { src: this.#addresses[index], alt: `Given picture ${index + 1}` }),
      h("small", {}, `${width} × ${height}`),
      h("button", {
        type: "button", class: "icon-button", "aria-label": `Remove picture ${index + 1}`, title: "Remove",
        on: { click: () => this.onChange(pictures.filter((_, other) => other !== index)) },
      }, icon("trash")))));
    this.choose.lastChild.textContent = pictures.length === 0 ? "Choose or drop a picture" : this.max > 1 ? "Add another" : "Another";
    this.choose.hidden = this.max > 1 && pictures.length >= this.max;
    this.element.classList.toggle("filled", pictures.length > 0);
  }

  /** Takes files; of more than fit, the last ones. */
  async add(files) {
    this.problem.textContent = "";
    try {
      const read = await Promise.all(files.map(readPicture));
      if (read.length) this.onChange([...this.#pictures, ...read].slice(-this.max));
    } catch (error) {
      this.problem.textContent = error.message;
    }
  }

  /** Says that there has to be a picture. */
  demand() {
    this.problem.textContent = "Choose a picture first.";
    this.choose.focus();
  }

  #over(event) {
    event.preventDefault();
    this.#mark(true);
  }

  #mark(over) {
    this.element.classList.toggle("over", over);
  }

  #drop(event) {
    event.preventDefault();
    this.#mark(false);
    this.add([...event.dataTransfer.files]);
  }
}
