// Where a question is written, sent and stopped.

import { h } from "../lib/dom.js";
import { icon } from "../lib/icons.js";

const MAX_HEIGHT = 240;

/** `onSend` gets the text of a question; `onStop` is called while one is answered. */
export class Composer {
  constructor({ onSend, onStop, onInput }) {
    this.onSend = onSend;
    this.input = h("textarea", {
      id: "question", rows: "1", placeholder: "Write a message", "aria-label": "Message", autocomplete: "off",
      "aria-describedby": "composer-hint", on: { input: () => { this.#grow(); onInput(); }, keydown: (event) => this.#key(event) },
    });
    this.sendButton = h("button", { type: "submit", class: "round primary", "aria-label": "Send", title: "Send (Enter)" }, icon("send"));
    this.stopButton = h("button", {
      type: "button", class: "round", "aria-label": "Stop", title: "Stop (Escape)", hidden: true, on: { click: onStop },
    }, icon("stop"));
    const hint = h("p", { class: "hint", id: "composer-hint" },
      h("kbd", {}, "Enter"), " sends, ", h("kbd", {}, "Shift"), " ", h("kbd", {}, "Enter"), " starts a line, ",
      h("kbd", {}, "Esc"), " stops");
    const box = h("div", { class: "composer-box" }, this.input, this.sendButton, this.stopButton);
    this.element = h("form", { class: "composer", on: { submit: (event) => { event.preventDefault(); this.#send(); } } }, box, hint);
  }

  get text() {
    return this.input.value;
  }

  /** Whether an answer is on its way: then the one button stops it. */
  set busy(busy) {
    const focused = document.activeElement;
    this.sendButton.hidden = busy;
    this.stopButton.hidden = !busy;
    this.isBusy = busy;
    // A button that vanishes would take the focus with it.
    if (focused === this.sendButton || focused === this.stopButton) this.focus();
  }

  set(text) {
    this.input.value = text;
    this.#grow();
  }

  focus() {
    this.input.focus();
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#send();
  }

  #send() {
    const text = this.input.value;
    if (this.isBusy || !text.trim()) return;
    this.set("");
    this.onSend(text);
  }

  #grow() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(MAX_HEIGHT, this.input.scrollHeight)}px`;
  }
}
