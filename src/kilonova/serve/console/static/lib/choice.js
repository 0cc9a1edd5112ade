// One of a few, side by side: radio buttons that look like a switch.

import { h, uniqueId } from "./dom.js";

/** `options` are titles by id. `value` is the chosen id, `set` chooses; `onChange` is called when someone chose another. */
export function choice(label, options, chosen, onChange) {
  const name = uniqueId("choice");
  const state = { value: chosen };
  const parts = Object.entries(options).map(([id, title]) => h("label", {},
    h("input", {
      type: "radio", name, value: id, checked: id === chosen,
      on: { change: () => { state.value = id; onChange(); } },
    }), h("span", {}, title)));
  state.set = (id) => {
    state.value = id;
    for (const { firstChild: input } of parts) input.checked = input.value === id;
  };
  state.element = h("fieldset", { class: "choice" }, h("legend", {}, label), parts);
  return state;
}
