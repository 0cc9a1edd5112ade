// Light, dark, or as the system says.

import { h } from "./dom.js";
import { icon } from "./icons.js";

const THEMES = ["auto", "light", "dark"];
const NAME = "kilonova.theme";

export function themeButton() {
  const button = h("button", { type: "button", class: "icon-button", on: { click: next } });

  function next() {
    const theme = THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length];
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      // Not as JSON: theme.js reads it before any module is there.
      localStorage.setItem(NAME, theme);
    } catch {
      // It holds until the page is closed.
    }
    draw();
  }

  function draw() {
    const label = `Colours: ${chosen() === "auto" ? "as the system" : chosen()}`;
    button.setAttribute("aria-label", label);
    button.title = label;
    button.replaceChildren(icon(chosen()));
  }

  draw();
  return button;
}

const chosen = () => document.documentElement.dataset.theme ?? "auto";
