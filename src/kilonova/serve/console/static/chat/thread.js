// The conversation on the page.

import { h } from "../lib/dom.js";
import { AnswerView } from "./answer.js";

// How often a streaming answer is drawn at most, in milliseconds.
const DRAW_EVERY = 50;
// How far from the end a reader may be and still be taken along, in pixels.
const NEAR = 80;

const STARTERS = [
  "What do bees make?",
  "What is the capital of France?",
  "Tell me a story about a girl and her dog.",
];

/** Draws turns and follows the last one. `onStart` gets a suggested question, `onRetry` is called to ask again. */
export class Thread {
  #views = [];
  #drawing = 0;
  #drawn = 0;

  constructor({ onStart, onRetry, modelName }) {
    this.onStart = onStart;
    this.onRetry = onRetry;
    this.modelName = modelName;
    this.column = h("div", { class: "thread-column", role: "log", "aria-label": "Conversation", "aria-live": "polite" });
    this.element = h("div", { class: "thread", tabindex: "0", role: "region", "aria-label": "Conversation, scrollable" }, this.column);
  }

  /** Shows a whole conversation from its beginning. */
  show(turns) {
    this.#views = [];
    this.column.replaceChildren();
    if (turns.length === 0) this.column.append(this.#welcome());
    for (const turn of turns) this.#append(turn);
    this.#views.forEach((view, index) => view.update(index === turns.length - 1));
    this.element.scrollTop = this.element.scrollHeight;
  }

  add(turn) {
    if (this.#views.length === 0) this.column.replaceChildren();
    this.#views.at(-1)?.update(false);
    this.#append(turn);
    this.element.scrollTop = this.element.scrollHeight;
  }

  /** Draws the last answer again, soon: once for all pieces that come close together. */
  changed() {
    this.#drawing ||= setTimeout(() => this.draw(), Math.max(0, this.#drawn + DRAW_EVERY - Date.now()));
  }

  /** Draws the last answer again, now. */
  draw() {
    clearTimeout(this.#drawing);
    this.#drawing = 0;
    this.#drawn = Date.now();
    const { element } = this;
    const follow = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR;
    this.#views.at(-1)?.update(true);
    if (follow) element.scrollTop = element.scrollHeight;
  }

  #append({ user, answer }) {
    const view = new AnswerView(answer, this.modelName(answer.model), this.onRetry);
    this.#views.push(view);
    this.column.append(
      h("article", { class: "question", "aria-label": "Your question" }, h("p", {}, user)),
      view.element,
    );
  }

  #welcome() {
    const starters = STARTERS.map((text) =>
      h("li", {}, h("button", { type: "button", class: "starter", on: { click: () => this.onStart(text) } }, text)));
    return h(
      "div", { class: "welcome" },
      h("h2", {}, "Ask something"),
      h("p", {}, "What you write and what comes back stay in this browser. The panel shows the same request as code."),
      h("ul", { class: "starters", "aria-label": "Suggestions" }, starters),
    );
  }
}
