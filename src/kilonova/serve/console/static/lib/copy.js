// Buttons that copy.

import { h } from "./dom.js";
import { icon } from "./icons.js";

/** A button that copies what `text` gives when it is pressed, and says so. */
export function copyButton(text, label = "Copy") {
  const words = h("span", {}, label);
  const button = h("button", { type: "button", class: "quiet", on: { click: copy } }, icon("copy"), words);

  async function copy() {
    const done = await copyText(text());
    words.textContent = done ? "Copied" : "Copying failed";
    button.firstElementChild.replaceWith(icon(done ? "check" : "warning"));
    setTimeout(() => {
      words.textContent = label;
      button.firstElementChild.replaceWith(icon("copy"));
    }, 1600);
  }

  words.setAttribute("aria-live", "polite");
  return button;
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelection(text);
  }
}

// Over plain HTTP from another machine the browser has no clipboard to write to, only selections to copy.
function copySelection(text) {
  const area = h("textarea", { class: "offscreen", "aria-hidden": "true", value: text });
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}
