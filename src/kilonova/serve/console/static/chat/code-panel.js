// The request as code that can be pasted into a terminal or a program.

import { copyButton } from "../lib/copy.js";
import { h } from "../lib/dom.js";
import { read, write } from "../lib/storage.js";
import { tabs } from "../lib/tabs.js";
import { LANGUAGES } from "./code.js";

const CHOSEN = "kilonova.language";

/** Shows what `request()` gives, in the chosen language, whenever it is told to draw. */
export class CodePanel {
  constructor({ keyed }) {
    this.keyed = keyed;
    this.title = h("h3", {});
    this.blocks = new Map(LANGUAGES.map(({ id }) => [id, h("code", {})]));
    const panels = LANGUAGES.map(({ id, title, operation }) => {
      const block = this.blocks.get(id);
      const head = h("div", { class: "code-head" }, h("span", {}, operation), copyButton(() => block.textContent));
      const pre = h("pre", { tabindex: "0", role: "region", "aria-label": `${title} code` }, block);
      return { id, title, panel: h("div", { class: "code-block" }, head, pre) };
    });
    const languages = tabs("Language", panels, (id) => write(CHOSEN, id));
    const chosen = read(CHOSEN, LANGUAGES[0].id);
    if (this.blocks.has(chosen)) languages.select(chosen);
    this.note = h("p", { class: "hint" });
    this.element = h("div", { class: "code-panel" }, this.title, languages.element, this.note);
  }

  draw(request, done) {
    const keyed = this.keyed();
    this.title.textContent = done ? "What you just asked" : "What you would ask";
    for (const { id, write: toCode } of LANGUAGES) {
      this.blocks.get(id).textContent = toCode(request, location.origin, keyed);
    }
    this.note.textContent = keyed
      ? "KILONOVA_API_KEY stands for your key, which is never written here. boto3 signs with the access key id and secret that were shown when the key was created."
      : "The server asks for no key, so the keys in the code may be anything.";
  }
}
