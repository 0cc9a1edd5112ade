// Where a picture is described, asked for and given up.

import { h } from "../lib/dom.js";
import { seconds } from "../lib/format.js";
import { icon } from "../lib/icons.js";

/** `onMake` is called for a picture, `onStop` to give it up, `onInput(text)` for each change of the words. */
export class Prompt {
  #timer = 0;

  constructor({ onMake, onStop, onInput }) {
    this.onMake = onMake;
    this.input = h("textarea", {
      id: "prompt", rows: "2", maxlength: "1024", placeholder: "Describe the picture", "aria-label": "Prompt", autocomplete: "off",
      on: { input: () => onInput(this.input.value), keydown: (event) => this.#key(event) },
    });
    this.verb = h("span", {});
    this.make = h("button", { type: "submit", class: "primary make", title: "Enter" }, icon("picture"), this.verb);
    this.stop = h("button", { type: "button", class: "make", title: "Escape", hidden: true, on: { click: onStop } }, icon("stop"), "Stop");
    this.cost = h("span", { class: "muted" });
    this.progress = h("progress", { "aria-label": "Drawing" });
    this.elapsed = h("span", { "aria-hidden": "true" });
    this.running = h("p", { class: "running", hidden: true }, this.progress, this.elapsed);
    this.status = h("span", { class: "offscreen", role: "status" });
    this.element = h("form", { class: "prompt", on: { submit: (event) => { event.preventDefault(); this.#make(); } } },
      this.input, h("div", { class: "prompt-foot" }, this.status, this.running, this.cost, this.make, this.stop));
  }

  show({ text }, { verb, text: hasText }, cost) {
    this.verb.textContent = verb;
    this.input.hidden = !hasText;
    if (this.input.value !== text) this.input.value = text;
    this.cost.textContent = cost;
  }

  /** Counts the time while a picture is on its way. */
  set busy(busy) {
    const focused = [this.make, this.stop].includes(document.activeElement);
    this.isBusy = busy;
    this.make.hidden = busy;
    this.stop.hidden = !busy;
    this.cost.hidden = busy;
    this.running.hidden = !busy;
    this.status.textContent = busy ? "Drawing" : "";
    clearInterval(this.#timer);
    // A button that vanishes would take the focus with it.
    if (focused) (busy ? this.stop : this.make).focus();
    if (!busy) return;
    const started = performance.now();
    const tick = () => { this.elapsed.textContent = seconds((performance.now() - started) / 1000); };
    this.#timer = setInterval(tick, 100);
    tick();
  }

  focus() {
    (this.input.hidden ? this.make : this.input).focus();
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#make();
  }

  #make() {
    if (!this.isBusy) this.onMake();
  }
}
