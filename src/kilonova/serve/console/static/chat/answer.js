// One answer on the page: its text, what went wrong, and what it took.

import { copyButton } from "../lib/copy.js";
import { h } from "../lib/dom.js";
import { count, dollars, plural, seconds, wait } from "../lib/format.js";
import { icon } from "../lib/icons.js";
import { markdown } from "../markdown/index.js";
import { speed } from "./ask.js";

const ENDINGS = { length: "stopped at max tokens", content_filter: "filtered" };

/** The element of an answer, which `update` draws again. `onRetry` is called to ask once more. */
export class AnswerView {
  #timer = 0;

  constructor(answer, modelName, onRetry) {
    this.answer = answer;
    this.onRetry = onRetry;
    this.body = h("div", { class: "prose" });
    this.problem = h("div", { class: "problem", role: "alert", hidden: true });
    this.facts = h("dl", { class: "facts" });
    this.retry = h("button", { type: "button", class: "quiet", on: { click: onRetry } }, icon("retry"), "Ask again");
    this.actions = h("div", { class: "actions" }, copyButton(() => answer.text), this.retry);
    this.element = h(
      "article", { class: "answer", "aria-label": `Answer of ${modelName}` },
      h("p", { class: "speaker" }, modelName), this.body, this.problem,
      h("footer", {}, this.facts, this.actions),
    );
    this.update(false);
  }

  /** Draws the answer; `last` says whether it is the one that can be asked for again. */
  update(last) {
    const { answer } = this;
    const streaming = answer.state === "streaming";
    this.element.classList.toggle("streaming", streaming);
    this.element.setAttribute("aria-busy", streaming);
    this.body.replaceChildren(...(answer.text || !streaming ? markdown(answer.text) : [waiting()]));
    this.facts.replaceChildren(...facts(answer));
    this.actions.hidden = streaming || answer.state === "failed";
    this.retry.hidden = !last;
    this.#showProblem(last);
  }

  #showProblem(last) {
    clearInterval(this.#timer);
    const { error } = this.answer;
    this.problem.hidden = !error;
    if (!error) return;
    const again = h("button", { type: "button", on: { click: this.onRetry } }, icon("retry"), h("span", {}, "Try again"));
    this.problem.replaceChildren(
      icon("warning"),
      h("div", {}, h("p", { class: "problem-title" }, error.title), h("p", {}, error.message)),
      ...(last ? [again] : []),
    );
    if (error.retryAt) this.#countDown(error.retryAt, again);
  }

  // Trying before the server wants to hear from us again would only fail.
  #countDown(until, button) {
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      button.disabled = left > 0;
      button.lastChild.textContent = left > 0 ? `Try again in ${wait(left)}` : "Try again";
      if (left <= 0) clearInterval(this.#timer);
    };
    this.#timer = setInterval(tick, 250);
    tick();
  }
}

function waiting() {
  return h("p", { class: "waiting" }, h("span", { class: "offscreen" }, "Waiting for the first word"), h("i"), h("i"), h("i"));
}

function facts(answer) {
  const { usage, cost, firstToken, duration } = answer;
  const rate = speed(answer);
  const cached = usage?.cached ? ` (${count(usage.cached)} cached)` : "";
  return [
    ...(usage ? [fact("Prompt", `${plural(usage.input, "token")} in${cached}`, "input")] : []),
    ...(usage ? [fact("Answer", `${count(usage.output)} out`, "output")] : []),
    ...(typeof cost === "number" ? [fact("Cost", dollars(cost), "cost")] : []),
    ...(rate === null ? [] : [fact("Speed", `${rate.toFixed(1)} tokens/s`, "speed")]),
    ...(firstToken === null ? [] : [fact("Time to first token", `first after ${seconds(firstToken)}`, "first-token")]),
    ...(answer.state === "stopped" ? [fact("End", `stopped after ${seconds(duration)}`, "end")] : []),
    ...(ENDINGS[answer.finishReason] ? [fact("End", ENDINGS[answer.finishReason], "end")] : []),
  ];
}

function fact(name, value, id) {
  return h("div", { data: { fact: id } }, h("dt", { class: "offscreen" }, name), h("dd", {}, value));
}
