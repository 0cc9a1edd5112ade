// The list of earlier conversations, beside the page.

import { h } from "../lib/dom.js";
import { icon } from "../lib/icons.js";

/** `onNew`, `onOpen(id)` and `onRemove(id)` say what was chosen. */
export class History {
  constructor({ onNew, onOpen, onRemove }) {
    this.onOpen = onOpen;
    this.onRemove = onRemove;
    this.entries = h("ul", {});
    const start = h("button", { type: "button", class: "new", title: "New conversation (Alt+N)", on: { click: onNew } }, icon("plus"), "New conversation");
    this.element = h("div", { class: "history" }, start, h("nav", { "aria-label": "Conversations" }, this.entries));
  }

  show(conversations, currentId) {
    this.entries.replaceChildren(...conversations.map(({ id, title }) => {
      const open = h("button", {
        type: "button", class: "open", "aria-current": id === currentId && "true", on: { click: () => this.onOpen(id) },
      }, title);
      const remove = h("button", {
        type: "button", class: "remove", "aria-label": `Delete the conversation: ${title}`, title: "Delete",
        on: { click: () => this.onRemove(id) },
      }, icon("trash"));
      return h("li", {}, open, remove);
    }));
  }
}
