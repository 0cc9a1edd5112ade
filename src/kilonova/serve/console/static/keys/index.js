// The section in which keys are made and revoked.

import { connect, fetchJson } from "../lib/api.js";
import { openDialog } from "../lib/dialog.js";
import { h } from "../lib/dom.js";
import { count, dateTime } from "../lib/format.js";
import { icon } from "../lib/icons.js";
import { session } from "../lib/session.js";
import { table } from "../lib/table.js";
import { newKeyForm } from "./form.js";
import { secretsView } from "./secrets.js";

export const keys = { id: "keys", title: "Keys", icon: "key", mount: () => new Keys() };

class Keys {
  constructor() {
    this.create = h("button", { type: "button", class: "primary", on: { click: () => this.#openForm() } }, icon("plus"), "New key");
    this.body = h("div", { class: "page-body" });
    this.element = h("div", { class: "page" },
      h("header", { class: "page-head" }, h("h1", {}, "Keys"), this.create), this.body);
    session.addEventListener("change", () => { if (!this.element.hidden && session.state === "ready") this.#load(); });
  }

  shown() {
    this.#load();
  }

  async #load() {
    this.create.hidden = !session.info.manages_keys;
    if (!session.info.manages_keys) {
      this.body.replaceChildren(this.#refused());
      return;
    }
    try {
      const { keys: known } = await fetchJson("GET", "/kilonova/keys");
      this.create.hidden = known.length === 0;
      this.body.replaceChildren(...(known.length ? [this.#table(known)] : [this.#empty()]));
    } catch (error) {
      this.#showError(error);
    }
  }

  #showError(error) {
    this.body.prepend(h("p", { class: "problem", role: "alert" }, icon("warning"), error.message));
  }

  #refused() {
    const reason = session.info.open
      ? "This server asks for no key, and lets only those who sit at its machine make one: open the console there by its address, http://127.0.0.1, or use the command "
      : "Managing keys takes a key with the operation keys.manage. Whoever runs the server makes one with ";
    return h("div", { class: "empty" }, icon("key"), h("h2", {}, "Keys are managed elsewhere"),
      h("p", {}, reason, h("code", {}, "kilonova keys create"), "."));
  }

  #empty() {
    return h("div", { class: "empty" }, icon("key"), h("h2", {}, "No key is asked for"),
      h("p", {}, "Anyone who can reach this server can use it. Make the first key, and from then on it takes requests with a key only; this page goes on with that key."),
      h("button", { type: "button", class: "primary", on: { click: () => this.#openForm() } }, icon("plus"), "Make the first key"));
  }

  #openForm() {
    const dialog = openDialog("New key", newKeyForm({ first: session.info.open, onCreated: (key) => created(key) }));
    const created = async (key) => {
      dialog.close();
      openDialog(`${key.name}: keep these now`, secretsView(key));
      // The server is closed from now on: without the key this page could do nothing more.
      if (session.info.open) await connect(key.secrets.openai_key).catch(() => {});
      this.#load();
    };
  }

  #table(known) {
    return table("Keys", [
      { title: "Name", cell: (key) => [key.name, h("small", {}, key.id)] },
      { title: "State", cell: (key) => h("span", { class: `state ${key.state}` }, key.state) },
      { title: "May use", cell: allowed },
      { title: "Limits", cell: limits },
      { title: "Last used", cell: (key) => key.last_used_at ? dateTime(key.last_used_at) : "never" },
      { title: "Expires", cell: (key) => key.expires_at ? dateTime(key.expires_at) : "never" },
      { title: "", cell: (key) => key.state === "active" ? this.#revokeButton(key) : "" },
    ], ["active", "expired", "revoked"].flatMap((state) => known.filter((key) => key.state === state).reverse())
      .map((key) => ({ ...key, class: key.state === "active" ? null : "dim" })));
  }

  #revokeButton(key) {
    const own = key.id === session.info.key?.id;
    const confirm = h("button", { type: "button", class: "danger", on: { click: () => revoke() } }, "Revoke it for good");
    const revoke = async () => {
      confirm.disabled = true;
      try {
        await fetchJson("DELETE", `/kilonova/keys/${encodeURIComponent(key.id)}`);
        if (own) await connect().catch(() => {});
      } catch (error) {
        this.#showError(error);
      }
      dialog.close();
      this.#load();
    };
    let dialog;
    const ask = () => {
      dialog = openDialog(`Revoke ${key.name}?`,
        h("p", {}, "Whatever uses this key is refused from now on. This cannot be undone."),
        own && h("p", { class: "problem" }, icon("warning"), "It is the key that this page uses."), confirm);
    };
    return h("button", { type: "button", class: "quiet", "aria-label": `Revoke ${key.name}`, on: { click: ask } }, "Revoke");
  }
}

function allowed(key) {
  const models = key.models ? key.models.join(", ") : "all models";
  return [models, h("small", {}, key.operations ? operations(key.operations) : "all but others' keys and usage")];
}

/** Operations, with the group's name in place of each whole group. */
function operations(names) {
  const left = new Set(names);
  const shown = [];
  for (const [group, members] of Object.entries(session.info.operations.groups)) {
    if (!members.every((name) => left.has(name))) continue;
    members.forEach((name) => left.delete(name));
    shown.push(group);
  }
  return [...shown, ...left].join(", ");
}

function limits(key) {
  const rates = [
    [key.requests_per_minute, "requests a minute"], [key.tokens_per_minute, "tokens a minute"], [key.tokens_per_day, "tokens a day"],
  ];
  const lines = rates.filter(([value]) => value !== null).map(([value, unit]) => `${count(value)} ${unit}`);
  if (key.budget_usd !== null) lines.push(`$${key.budget_usd} ${key.budget_period === "total" ? "in all" : `a ${key.budget_period}`}`);
  return lines.length ? lines.flatMap((line, index) => index ? [h("br"), line] : [line]) : "none";
}
