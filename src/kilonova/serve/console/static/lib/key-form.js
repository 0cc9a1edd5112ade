// Where a key is entered that the server asks for.

import { connect } from "./api.js";
import { field, h } from "./dom.js";

/** The form; `onDone` is called once the server has taken the key. */
export function keyForm(onDone = () => {}) {
  const input = h("input", {
    type: "password", autocomplete: "off", spellcheck: "false", required: true, autofocus: true, placeholder: "sk-… or ABSK…",
  });
  const problem = h("p", { class: "field-problem", role: "alert" });
  const submit = h("button", { type: "submit", class: "primary" }, "Use this key");

  async function use(event) {
    event.preventDefault();
    problem.textContent = "";
    submit.disabled = true;
    try {
      await connect(input.value.trim());
      onDone();
    } catch (error) {
      problem.textContent = error.status === 401 ? `The server does not take this key. ${error.message}` : error.message;
      input.setAttribute("aria-invalid", "true");
      input.focus();
    } finally {
      submit.disabled = false;
    }
  }

  return h("form", { class: "key-form", on: { submit: use } },
    field("Key", input, "Kept for this browser tab only, and forgotten when it is closed."), problem, submit);
}
