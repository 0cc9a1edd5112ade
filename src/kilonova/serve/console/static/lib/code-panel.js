// The request as code that can be pasted into a terminal or a program.

import { copyButton } from "./copy.js";
import { h } from "./dom.js";
import { read, write } from "./storage.js";
import { tabs } from "./tabs.js";

const CHOSEN = "kilonova.language";

/**
 * Shows a request in the chosen language whenever it is told to draw. `languages` are { id, title, operation, write },
 * where `write` gives the code for a request, the server's address and whether it asks for a key.
 */
export class CodePanel {
  constructor({ languages, keyed }) {
    this.languages = languages;
    this.keyed = keyed;
    this.title = h("h3", {});
    const chosen = read(CHOSEN, languages[0].id);
    this.blocks = new Map(languages.map(({ id }) => [id, h("code", {})]));
    const panels = languages.map(({ id, title, operation }) => {
      const block = this.blocks.get(id);
      const head = h("div", { class: "code-head" }, h("span", {}, operation), copyButton(() => block.textContent));
      const pre = h("pre", { tabindex: "0", role: "region", "aria-label": `${title} code` }, block);
      return { id, title, panel: h("div", { class: "code-block" }, head, pre) };
    });
    const chooser = tabs("Language", panels, (id) => write(CHOSEN, id));
    if (this.blocks.has(chosen)) chooser.select(chosen);
    this.note = h("p", { class: "hint" });
    this.element = h("div", { class: "code-panel" }, this.title, chooser.element, this.note);
  }

  draw(request, done) {
    const keyed = this.keyed();
    this.title.textContent = done ? "What you just asked" : "What you would ask";
    for (const { id, write: toCode } of this.languages) {
      this.blocks.get(id).textContent = toCode(request, location.origin, keyed);
    }
    this.note.textContent = keyed
      ? "KILONOVA_API_KEY stands for your key, which is never written here. boto3 signs with the access key id and secret that were shown when the key was created."
      : "The server asks for no key, so the keys in the code may be anything.";
  }
}
