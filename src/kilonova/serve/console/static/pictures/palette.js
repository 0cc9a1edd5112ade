// Up to ten colours.

import { h } from "../lib/dom.js";
import { icon } from "../lib/icons.js";

const MAX_COLOURS = 10;

/** The editor of a list of "#rrggbb"; `onChange` gets the new one. */
export class Palette {
  #colours = [];

  constructor(onChange) {
    this.onChange = onChange;
    this.list = h("ul", { class: "palette" });
    this.element = h("div", { class: "field", role: "group", "aria-label": "Palette" },
      h("p", { class: "slot-title" }, "Palette"), this.list, h("p", { class: "hint" }, "One to ten colours that the picture keeps to."));
  }

  show(colours) {
    this.#colours = colours;
    const inputs = [...this.list.querySelectorAll("input")];
    // An input that is drawn again would close the colour picker over it.
    if (inputs.length === colours.length && inputs.includes(document.activeElement)) return;
    const entries = colours.map((colour, index) => h("li", {},
      h("input", {
        type: "color", value: colour, "aria-label": `Colour ${index + 1}`,
        on: { input: ({ target }) => this.onChange(this.#colours.with(index, target.value)) },
      }),
      h("button", {
        type: "button", class: "icon-button", "aria-label": `Remove colour ${index + 1}`, title: "Remove", disabled: colours.length === 1,
        on: { click: () => this.onChange(this.#colours.toSpliced(index, 1)) },
      }, icon("close"))));
    const add = h("li", {}, h("button", {
      type: "button", class: "icon-button", "aria-label": "Add a colour", title: "Add a colour",
      on: { click: () => this.onChange([...this.#colours, "#808080"]) },
    }, icon("plus")));
    this.list.replaceChildren(...entries, ...(colours.length < MAX_COLOURS ? [add] : []));
  }
}
