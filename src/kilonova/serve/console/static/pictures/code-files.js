// The files that the shown code reads, to be saved beside it.

import { h } from "../lib/dom.js";
import { icon } from "../lib/icons.js";

export class CodeFiles {
  constructor() {
    this.element = h("div", { class: "code-files", hidden: true });
  }

  /** `files` are those of a body. */
  show(files) {
    this.element.hidden = files.length === 0;
    this.element.replaceChildren(h("p", { class: "hint" }, "The code reads these from where it runs:"),
      ...files.map((file) => h("button", { type: "button", class: "quiet", on: { click: () => save(file) } }, icon("download"), file.name)));
  }
}

async function save({ name, read }) {
  const address = URL.createObjectURL(await read());
  h("a", { href: address, download: name }).click();
  URL.revokeObjectURL(address);
}
