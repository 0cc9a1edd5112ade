// Tabs: arrow keys move between them, as the ARIA practices say.

import { h, uniqueId } from "./dom.js";

/** `entries` are { id, title, panel }; `onSelect` gets the id of the tab that is shown. */
export function tabs(label, entries, onSelect = () => {}) {
  const prefix = uniqueId("tab");
  const buttons = entries.map(({ id, title }) => h("button", {
    type: "button", role: "tab", id: `${prefix}-${id}`, "aria-controls": `${prefix}-${id}-panel`,
    on: { click: () => select(id), keydown: move },
  }, title));
  const panels = entries.map(({ id, panel }) => h("div", {
    role: "tabpanel", id: `${prefix}-${id}-panel`, "aria-labelledby": `${prefix}-${id}`,
  }, panel));

  function select(id) {
    entries.forEach((entry, index) => {
      const chosen = entry.id === id;
      buttons[index].setAttribute("aria-selected", chosen);
      buttons[index].tabIndex = chosen ? 0 : -1;
      panels[index].hidden = !chosen;
    });
    onSelect(id);
  }

  function move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = (buttons.indexOf(event.currentTarget) + step + buttons.length) % buttons.length;
    select(entries[next].id);
    buttons[next].focus();
  }

  select(entries[0].id);
  return { element: h("div", { class: "tabs" }, h("div", { role: "tablist", "aria-label": label }, buttons), panels), select };
}
