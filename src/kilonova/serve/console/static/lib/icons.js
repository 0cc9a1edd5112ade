// Line icons on a grid of 24.

import { s } from "./dom.js";

const PATHS = {
  chat: "M4 5h16v11H9l-5 4z",
  chart: "M4 20h16M7 16v-5M12 16V5M17 16v-8",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 8.5h.01",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  undo: "M9 5L4 10l5 5M4 10h10a5 5 0 0 1 0 10h-3",
  invert: "M4 4h16v16H4zM4 20L20 4M14 17h4M7 6v4M5 8h4",
  grow: "M9 9h6v6H9zM4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4",
  edit: "M4 20l1-4L16 5l3 3L8 19z",
  key: "M8 11a4 4 0 1 0 0 8 4 4 0 0 0 0-8M10.8 12.2L20 3M16 7l3 3",
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  check: "M5 13l4 4L19 7",
  retry: "M20 11a8 8 0 1 0-2.3 6.6M20 4v7h-7",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  panel: "M4 5h16v14H4zM15 5v14",
  close: "M6 6l12 12M18 6L6 18",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M19 5l-1.4 1.4M6.4 17.6L5 19",
  dark: "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z",
  auto: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  keyboard: "M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M18 10h.01M8 14h8",
  warning: "M12 4L2.5 20h19zM12 10v4M12 17h.01",
};

/** A decorative icon; what it stands for must be said by its surroundings. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: PATHS[name] }));
}
