// System prompt and sampling.

import { field, h } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { defaultSettings } from "./conversations.js";

/** The form of `settings` and the conversation's system prompt; `onChange` is called after each change. */
export class SettingsForm {
  constructor({ settings, onSystem, onChange }) {
    this.settings = settings;
    this.onChange = onChange;
    this.system = h("textarea", {
      rows: "5", placeholder: "How the model should behave", on: { input: () => onSystem(this.system.value) },
    });
    this.temperature = this.#slider("temperature");
    this.topP = this.#slider("topP");
    this.maxTokens = this.#number("maxTokens", { min: 1, placeholder: "as many as fit" });
    this.seed = this.#number("seed", { min: 0, placeholder: "random" });
    const reset = h("button", { type: "button", class: "quiet", on: { click: () => this.#reset() } }, "Back to the defaults");
    this.maxField = field("Max tokens", this.maxTokens, "The longest answer.");
    this.element = h(
      "form", { class: "settings", on: { submit: (event) => event.preventDefault() } },
      field("System prompt", this.system, "Comes before every conversation turn."),
      this.#withValue("Temperature", this.temperature, "0 always takes the likeliest word."),
      this.#withValue("Top p", this.topP, "Chooses among the likeliest words that make up this share."),
      this.maxField,
      field("Seed", this.seed, "The same seed and request give the same answer."),
      reset,
    );
    this.#fill();
  }

  /** What the chosen model allows. */
  set model(model) {
    this.maxTokens.max = model.max_output_tokens;
    this.maxField.lastElementChild.textContent = `The longest answer, at most ${count(model.max_output_tokens)}.`;
  }

  set systemPrompt(text) {
    this.system.value = text;
  }

  #slider(name) {
    return h("input", {
      type: "range", min: "0", max: "1", step: "0.05",
      on: { input: (event) => this.#set(name, Number(event.target.value)) },
    });
  }

  #number(name, attributes) {
    const change = ({ target }) => {
      const valid = target.checkValidity();
      target.setAttribute("aria-invalid", !valid);
      if (valid) this.#set(name, target.value === "" ? null : Number(target.value));
    };
    return h("input", { type: "number", step: "1", inputmode: "numeric", ...attributes, on: { input: change } });
  }

  #withValue(label, control, hint) {
    const element = field(label, control, hint);
    control.output = h("output", { for: control.id });
    element.firstElementChild.after(control.output);
    element.classList.add("with-value");
    return element;
  }

  #set(name, value) {
    this.settings[name] = value;
    this.#fill();
    this.onChange();
  }

  #reset() {
    Object.assign(this.settings, { ...defaultSettings(), model: this.settings.model });
    this.#fill();
    this.onChange();
  }

  #fill() {
    for (const name of ["temperature", "topP"]) {
      this[name].value = this.settings[name];
      this[name].output.textContent = this.settings[name].toFixed(2);
    }
    for (const name of ["maxTokens", "seed"]) {
      if (document.activeElement !== this[name]) this[name].value = this.settings[name] ?? "";
    }
  }
}
