// The shell: which section is shown, how the server fares, and the keys that work everywhere.

import { chat } from "./chat/index.js";
import { connect } from "./lib/api.js";
import { openDialog } from "./lib/dialog.js";
import { h } from "./lib/dom.js";
import { icon } from "./lib/icons.js";
import { keyForm } from "./lib/key-form.js";
import { session } from "./lib/session.js";
import { openShortcuts, pressed } from "./lib/shortcuts.js";
import { themeButton } from "./lib/theme-button.js";
import { keys } from "./keys/index.js";
import { pictures } from "./pictures/index.js";
import { usage } from "./usage/index.js";

// A section is { id, title, icon, mount }. `mount()` is called when it is first opened, and gives { element } and what
// it wants of: `side` (an element below the navigation), `shown()` (called each time it is opened) and `shortcuts`.
const SECTIONS = [chat, pictures, usage, keys];
const RETRY_EVERY = 3000;

const main = document.getElementById("main");
const side = document.getElementById("side-extra");
const banner = document.getElementById("banner");
const gate = h("section", { class: "gate", hidden: true });
const mounted = new Map();
let current = null;
let retry = 0;

function draw() {
  const { state } = session;
  gate.hidden = session.info !== null && state !== "locked";
  if (state === "locked") showGate();
  else if (session.info === null) gate.replaceChildren(h("p", { class: "muted", role: "status" }, "Connecting to the server"));
  else open();
  banner.hidden = state !== "gone";
  banner.textContent = state === "gone" ? "The server does not answer. Trying again every few seconds." : "";
  if (state === "gone") retry ||= setInterval(() => connect().catch(() => {}), RETRY_EVERY);
  else retry = void clearInterval(retry);
  for (const { element } of mounted.values()) element.inert = state === "locked";
  drawFoot();
}

function showGate() {
  if (gate.querySelector("form")) return;
  gate.replaceChildren(
    h("div", { class: "gate-card" }, icon("key"), h("h1", {}, "This server asks for a key"),
      h("p", {}, "Whoever runs it makes one with ", h("code", {}, "kilonova keys create"), "."), keyForm()),
  );
  gate.querySelector("input").focus();
}

/** Shows the section that the address names, or else the first. */
function open() {
  gate.replaceChildren();
  const id = location.hash.replace("#/", "");
  const section = SECTIONS.find((each) => each.id === id) ?? SECTIONS[0];
  if (section === current) return;
  current = section;
  if (!mounted.has(section.id)) {
    mounted.set(section.id, section.mount());
    main.append(mounted.get(section.id).element);
  }
  for (const [name, { element }] of mounted) element.hidden = name !== section.id;
  const shown = mounted.get(section.id);
  side.replaceChildren(...(shown.side ? [shown.side] : []));
  for (const link of document.querySelectorAll("#sections a")) {
    if (link.dataset.section === section.id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${section.title} · Kilonova`;
  main.scrollTop = 0;
  shown.shown?.();
}

function drawFoot() {
  const { info } = session;
  const who = info === null ? "" : info.open ? "No key needed" : info.key ? info.key.name : "";
  const key = h("button", {
    type: "button", class: "who", title: "Use another key", hidden: info === null || info.open, on: { click: changeKey },
  }, icon("key"), who);
  document.getElementById("side-foot").replaceChildren(
    key,
    h("p", { class: "muted who", hidden: !info?.open }, who),
    h("div", { class: "foot-buttons" }, themeButton(), shortcutsButton()),
    h("p", { class: "version" }, info === null ? "" : `Kilonova ${info.version}`),
  );
}

function changeKey() {
  const forget = h("button", { type: "button", class: "quiet", on: { click: () => {
    dialog.close();
    session.useKey("");
    connect().catch(() => {});
  } } }, "Forget the key");
  const dialog = openDialog("Use another key", keyForm(() => dialog.close()), forget);
}

function shortcutsButton() {
  return h("button", {
    type: "button", class: "icon-button", "aria-label": "Keyboard shortcuts", title: "Keyboard shortcuts (?)", on: { click: openShortcuts },
  }, icon("keyboard"));
}

function onKey(event) {
  if (session.state === "locked" || document.querySelector("dialog[open]")) return;
  const name = pressed(event);
  const number = /^Alt\+Digit([1-9])$/.exec(name);
  const action = number ? SECTIONS[number[1] - 1] && (() => { location.hash = `#/${SECTIONS[number[1] - 1].id}`; })
    : name === "?" ? openShortcuts
    : mounted.get(current?.id)?.shortcuts?.[name];
  if (!action) return;
  if (name !== "Escape") event.preventDefault();
  action();
}

document.getElementById("sections").append(...SECTIONS.map((section, index) =>
  h("li", {}, h("a", { href: `#/${section.id}`, data: { section: section.id }, title: `${section.title} (Alt+${index + 1})` },
    icon(section.icon), section.title))));
// The address names the section, so the link may not change it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
main.append(gate);
addEventListener("keydown", onKey);
addEventListener("hashchange", () => { if (session.info && session.state !== "locked") open(); });
session.addEventListener("change", draw);
draw();
connect().catch((error) => {
  // Locked and gone are announced; anything else would be silent.
  if (session.state === "loading") gate.replaceChildren(h("p", { class: "problem", role: "alert" }, error.message));
});
