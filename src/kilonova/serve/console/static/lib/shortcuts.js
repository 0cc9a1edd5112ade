// Keys that work anywhere on the page.

import { openDialog } from "./dialog.js";
import { h } from "./dom.js";

const LIST = [
  [["Enter"], "Send the message, or make the picture"],
  [["Shift", "Enter"], "Start a new line"],
  [["Esc"], "Stop it"],
  [["/"], "Go to where it is written"],
  [["Alt", "N"], "New conversation, or new picture"],
  [["Alt", "S"], "Settings and code"],
  [["Alt", "1"], "Chat; Alt 2 and so on for the other sections"],
  [["?"], "This list"],
];

/** The name of a pressed key: "Escape", "/", "Alt+KeyN"; null for what is typed into a field. */
export function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.isComposing) return null;
  // With Alt some layouts type another character, so the place of the key counts.
  if (event.altKey) return `Alt+${event.code}`;
  const typing = event.target.closest?.("input, textarea, select");
  return typing && event.key !== "Escape" ? null : event.key;
}

export function openShortcuts() {
  const rows = LIST.flatMap(([keys, what]) => [
    h("dt", {}, keys.flatMap((key, index) => [index ? " " : "", h("kbd", {}, key)])), h("dd", {}, what),
  ]);
  openDialog("Keyboard shortcuts", h("dl", { class: "shortcuts" }, rows));
}
