// Earlier pictures, beside the page.

import { h } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { taskOf } from "./tasks.js";

/** `onNew`, `onOpen(entry)`, `onRemove(entry)` and `onClear` say what was chosen. */
export class HistoryList {
  #addresses = new Map();

  constructor({ onNew, onOpen, onRemove, onClear }) {
    this.onOpen = onOpen;
    this.onRemove = onRemove;
    this.entries = h("ul", {});
    this.clear = h("button", { type: "button", class: "quiet", on: { click: onClear } }, icon("trash"), "Forget all");
    const start = h("button", { type: "button", class: "new", title: "New picture (Alt+N)", on: { click: onNew } }, icon("plus"), "New picture");
    this.element = h("div", { class: "history picture-history" }, start, h("nav", { "aria-label": "Earlier pictures" }, this.entries), this.clear);
  }

  show(entries, current) {
    const known = new Set(entries.map(({ id }) => id));
    for (const [id, address] of this.#addresses) {
      if (known.has(id)) continue;
      URL.revokeObjectURL(address);
      this.#addresses.delete(id);
    }
    this.clear.hidden = entries.length === 0;
    this.entries.replaceChildren(...entries.map((entry) => {
      const title = entry.draft.text.trim() || taskOf(entry.draft).title;
      if (!this.#addresses.has(entry.id)) this.#addresses.set(entry.id, URL.createObjectURL(entry.pictures[0]));
      return h("li", {},
        h("button", {
          type: "button", class: "open", "aria-current": entry === current && "true", on: { click: () => this.onOpen(entry) },
        }, h("img", { src: this.#addresses.get(entry.id), alt: "" }), h("span", {}, title)),
        h("button", {
          type: "button", class: "remove", "aria-label": `Forget the picture: ${title}`, title: "Forget", on: { click: () => this.onRemove(entry) },
        }, icon("trash")));
    }));
  }
}
