// Before and after, with a line between them that can be moved.

import { h } from "../lib/dom.js";

/** `before` and `after` are addresses of two pictures of `width` x `height` pixels. */
export function compare(before, after, description, width, height) {
  const slider = h("input", {
    type: "range", min: "0", max: "100", value: "50", class: "compare-slider", "aria-label": "Before and after", on: { input: place },
  });
  const element = h("div", { class: "compare" }, h("img", { src: before, alt: "Before", width, height }),
    h("img", { class: "after", src: after, alt: description }), h("i", { class: "compare-line" }), slider,
    h("span", { class: "tag", "aria-hidden": "true" }, "Before"), h("span", { class: "tag end", "aria-hidden": "true" }, "After"));

  function place() {
    element.style.setProperty("--at", `${slider.value}%`);
  }

  place();
  return element;
}
