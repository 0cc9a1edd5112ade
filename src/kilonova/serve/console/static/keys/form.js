// The form of a new key.

import { fetchJson } from "../lib/api.js";
import { field, h } from "../lib/dom.js";
import { session } from "../lib/session.js";

const TITLES = {
  bedrock: "Bedrock's API",
  openai: "OpenAI's API",
  usage: "See its own usage",
  metrics: "Read metrics",
  "usage.all": "See everyone's usage",
  "keys.manage": "Make and revoke keys",
};
// What a key may only do that is given it by name.
const BY_NAME = ["usage.all", "keys.manage"];

/** `first` says that there is no key yet: the one who makes it wants to go on managing. */
export function newKeyForm({ first, onCreated }) {
  const name = h("input", { type: "text", required: true, maxlength: "100", autocomplete: "off", autofocus: true });
  const usual = Object.keys(session.info.operations.groups);
  const checks = [...usual, ...BY_NAME].map((id) => [id, check(TITLES[id] ?? id, first || usual.includes(id))]);
  const models = session.info.models.map((model) => [model.name, check(model.display_name, true)]);
  const requests = limit();
  const perMinute = limit();
  const perDay = limit();
  const days = h("input", { type: "number", min: "1", max: "3650", step: "1", placeholder: "never" });
  const budget = h("input", { type: "text", inputmode: "decimal", placeholder: "no limit", pattern: "\\d{1,9}(\\.\\d{1,6})?" });
  const period = h("select", {}, ["day", "month", "total"].map((each) => h("option", { value: each }, each)));
  period.value = "month";
  const problem = h("p", { class: "field-problem", role: "alert" });
  const submit = h("button", { type: "submit", class: "primary" }, "Make the key");

  async function create(event) {
    event.preventDefault();
    problem.textContent = "";
    submit.disabled = true;
    const granted = chosen(checks);
    const allowed = chosen(models);
    if (granted.length === 0 || allowed.length === 0) {
      problem.textContent = "A key has to be good for something: choose an operation and a model.";
      submit.disabled = false;
      return;
    }
    const body = {
      name: name.value,
      operations: granted.join() === usual.join() ? null : granted,
      models: allowed.length === models.length ? null : allowed,
      requests_per_minute: number(requests),
      tokens_per_minute: number(perMinute),
      tokens_per_day: number(perDay),
      expires_in_days: number(days),
      budget_usd: budget.value.trim() || null,
      budget_period: period.value,
    };
    try {
      onCreated(await fetchJson("POST", "/kilonova/keys", { body }));
    } catch (error) {
      problem.textContent = error.message;
    } finally {
      submit.disabled = false;
    }
  }

  const note = first && h("p", { class: "note" },
    "From the moment it exists, the server takes no request without a key. This page goes on with the new one.");
  return h("form", { class: "new-key", on: { submit: create } }, note,
    field("Name", name, "Whose it is; usage is shown under this name."),
    h("fieldset", {}, h("legend", {}, "May"), checks.map(([, { element }]) => element)),
    models.length > 1 && h("fieldset", {}, h("legend", {}, "Models"), models.map(([, { element }]) => element)),
    h("details", {}, h("summary", {}, "Limits and expiry"), h("div", { class: "columns" },
      field("Requests a minute", requests), field("Tokens a minute", perMinute), field("Tokens a day", perDay),
      field("Expires after days", days), field("Budget in dollars", budget), field("Budget for each", period))),
    problem, submit);
}

function check(title, checked) {
  const input = h("input", { type: "checkbox", checked });
  return { input, element: h("label", { class: "check" }, input, title) };
}

const chosen = (checks) => checks.filter(([, { input }]) => input.checked).map(([id]) => id);

const limit = () => h("input", { type: "number", min: "1", step: "1", placeholder: "no limit" });

const number = (input) => (input.value === "" ? null : Number(input.value));
