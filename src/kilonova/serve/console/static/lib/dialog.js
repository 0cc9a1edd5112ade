// Dialogs over the page; the browser keeps the focus inside and closes them at Escape.

import { h, uniqueId } from "./dom.js";
import { icon } from "./icons.js";

/** Shows `content` under a title until it is closed; returns the dialog. */
export function openDialog(title, ...content) {
  const id = uniqueId("dialog");
  const close = h("button", {
    type: "button", class: "icon-button", "aria-label": "Close", on: { click: () => dialog.close() },
  }, icon("close"));
  const dialog = h("dialog", { "aria-labelledby": id, on: { close: () => dialog.remove() } },
    h("header", {}, h("h2", { id }, title), close), content);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
