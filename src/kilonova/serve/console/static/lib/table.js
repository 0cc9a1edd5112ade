// Tables of what the server tells.

import { h } from "./dom.js";

/** `columns` are { title, cell(row), number }; the first one heads its row. */
export function table(caption, columns, rows) {
  const head = columns.map(({ title, number }) => h("th", { scope: "col", class: number && "number" }, title));
  const body = rows.map((row) => h("tr", { class: row.class }, columns.map(({ cell, number }, index) =>
    h(index ? "td" : "th", { scope: index ? null : "row", class: number && "number" }, cell(row)))));
  return h("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "offscreen" }, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}
