// The section in which one talks to a model.

import { CodePanel } from "../lib/code-panel.js";
import { h } from "../lib/dom.js";
import { count, dollars, plural, short } from "../lib/format.js";
import { icon } from "../lib/icons.js";
import { modelOptions, modelsWith } from "../lib/models.js";
import { toProblem } from "../lib/problems.js";
import { read, write } from "../lib/storage.js";
import { session } from "../lib/session.js";
import { tabs } from "../lib/tabs.js";
import { ask } from "./ask.js";
import { LANGUAGES } from "./code.js";
import { Composer } from "./composer.js";
import * as kept from "./conversations.js";
import { History } from "./history.js";
import { SettingsForm } from "./settings.js";
import { Thread } from "./thread.js";

const PANEL = "kilonova.panel";
const SAVE_EVERY = 1000;

export const chat = { id: "chat", title: "Chat", icon: "chat", mount: () => new Chat() };

class Chat {
  #settings = kept.loadSettings();
  #conversation = kept.currentConversation();
  #running = null; // The AbortController of the answer that is on its way.
  #lastRequest = null;

  constructor() {
    this.picker = h("select", { "aria-label": "Model", on: { change: () => this.#pick(this.picker.value) } });
    this.context = h("span", { class: "muted" });
    this.totals = h("p", { class: "totals" });
    this.notice = h("p", { class: "notice", role: "status", hidden: true });
    this.toggle = h("button", {
      type: "button", class: "icon-button", "aria-label": "Settings and code", title: "Settings and code (Alt+S)",
      "aria-expanded": "true", "aria-controls": "panel", on: { click: () => this.#showPanel(this.panel.hidden) },
    }, icon("panel"));
    this.thread = new Thread({
      onStart: (text) => this.#send(text),
      onRetry: () => this.#retry(),
      modelName: (name) => this.#model(name)?.display_name ?? name,
    });
    this.composer = new Composer({ onSend: (text) => this.#send(text), onStop: () => this.#stop(), onInput: () => this.#drawCode() });
    this.history = new History({
      onNew: () => this.#open(kept.newConversation(this.#conversation.system)),
      onOpen: (id) => this.#open(kept.load(id) ?? kept.newConversation()),
      onRemove: (id) => this.#remove(id),
    });
    this.settings = new SettingsForm({
      settings: this.#settings,
      onSystem: (text) => { this.#conversation.system = text; this.#changed(); },
      onChange: () => this.#changed(),
    });
    this.code = new CodePanel({ languages: LANGUAGES, keyed: () => !session.info?.open });
    const panelTabs = tabs("Settings and code", [
      { id: "settings", title: "Settings", panel: this.settings.element },
      { id: "code", title: "Code", panel: this.code.element },
    ], (id) => { this.tab = id; this.#drawCode(); });
    this.panel = h("aside", { class: "panel", id: "panel", "aria-label": "Settings and code" }, panelTabs.element);
    this.element = this.#layout();
    this.side = this.history.element;
    this.#open(this.#conversation);
    this.#showPanel(read(PANEL, window.innerWidth > 1100));
    session.addEventListener("change", () => this.#showModels());
    this.#showModels();
  }

  /** What a key pressed anywhere means here. */
  shortcuts = {
    Escape: () => this.#stop(),
    "/": () => this.composer.focus(),
    "Alt+KeyN": () => this.#open(kept.newConversation(this.#conversation.system)),
    "Alt+KeyS": () => this.#showPanel(this.panel.hidden),
  };

  shown() {
    if (matchMedia("(pointer: fine)").matches) this.composer.focus();
  }

  #layout() {
    const head = h("header", { class: "chat-head" },
      h("h1", { class: "offscreen" }, "Chat"), h("div", { class: "picker" }, this.picker, this.context), this.totals, this.toggle);
    return h("div", { class: "chat" },
      h("div", { class: "chat-column" }, head, this.thread.element, this.notice, this.composer.element), this.panel);
  }

  #showModels() {
    const models = this.#models();
    if (models.length === 0) return;
    this.picker.replaceChildren(...modelOptions(models));
    this.#pick(this.#model(this.#settings.model) ? this.#settings.model : models[0].name);
    this.thread.show(this.#conversation.turns);
  }

  #models() {
    return modelsWith("text");
  }

  #model(name) {
    return this.#models().find((model) => model.name === name);
  }

  #pick(name) {
    this.#settings.model = name;
    this.picker.value = name;
    const model = this.#model(name);
    const price = model.price;
    this.context.textContent = `${short(model.context_length)} context`
      + (price ? `, $${price.input} in and $${price.output} out per million tokens` : ", no price");
    this.settings.model = model;
    this.#changed();
  }

  #changed() {
    kept.saveSettings(this.#settings);
    this.#save();
    this.#lastRequest = null;
    this.#drawCode();
  }

  #open(conversation) {
    this.#stop();
    this.#conversation = conversation;
    this.#lastRequest = null;
    this.settings.systemPrompt = conversation.system;
    this.thread.show(conversation.turns);
    this.#save();
    this.#drawTotals();
    this.#drawHistory();
    this.#drawCode();
    if (this.element.isConnected) this.composer.focus();
  }

  #remove(id) {
    kept.remove(id);
    if (id === this.#conversation.id) this.#open(kept.newConversation(this.#conversation.system));
    else this.#drawHistory();
  }

  #request(turns, question) {
    const { model, temperature, topP, maxTokens, seed } = this.#settings;
    const messages = kept.messages(turns, question);
    const bedrockId = this.#model(model)?.bedrock_id ?? model;
    return { model, bedrockId, system: this.#conversation.system, messages, temperature, topP, maxTokens, seed };
  }

  #send(text) {
    if (this.#running || !this.#model(this.#settings.model)) return;
    const turn = { user: text, answer: this.#newAnswer() };
    const request = this.#request(this.#conversation.turns, text);
    this.#conversation.turns.push(turn);
    this.thread.add(turn);
    this.#drawHistory();
    this.#answer(this.#conversation, turn.answer, request);
  }

  #retry() {
    const turns = this.#conversation.turns;
    if (this.#running || turns.length === 0) return;
    const last = turns.at(-1);
    // What the replaced answer took was paid for all the same.
    const spent = this.#conversation.spent ??= { input: 0, output: 0, cost: 0 };
    spent.input += last.answer.usage?.input ?? 0;
    spent.output += last.answer.usage?.output ?? 0;
    spent.cost += last.answer.cost ?? 0;
    last.answer = this.#newAnswer();
    this.thread.show(turns);
    this.#answer(this.#conversation, last.answer, this.#request(turns.slice(0, -1), last.user));
  }

  #newAnswer() {
    return {
      model: this.#settings.model, text: "", state: "streaming", usage: null, cost: null,
      firstToken: null, duration: 0, finishReason: "", error: null,
    };
  }

  async #answer(conversation, answer, request) {
    const running = (this.#running = new AbortController());
    const price = this.#model(request.model).price;
    let saved = Date.now();
    this.composer.busy = true;
    this.#lastRequest = request;
    this.#save();
    this.#drawCode();
    const onChange = () => {
      if (this.#conversation !== conversation) return;
      this.thread.changed();
      this.#drawTotals();
      if (Date.now() - saved > SAVE_EVERY) {
        saved = Date.now();
        this.#save();
      }
    };
    try {
      await ask(request, answer, { price, signal: running.signal, onChange });
      session.set("ready");
    } catch (error) {
      answer.state = "failed";
      answer.error = toProblem(error);
    }
    if (this.#running === running) {
      this.#running = null;
      this.composer.busy = false;
    }
    conversation.updated = Date.now();
    kept.save(conversation);
    if (this.#conversation === conversation) this.thread.draw();
    this.#drawTotals();
    this.#drawHistory();
  }

  #stop() {
    this.#running?.abort();
  }

  #save() {
    const saved = kept.save(this.#conversation);
    this.notice.hidden = saved;
    this.notice.textContent = saved ? "" : "This browser keeps nothing more; delete old conversations to make room.";
  }

  #showPanel(open) {
    this.panel.hidden = !open;
    this.toggle.setAttribute("aria-expanded", open);
    write(PANEL, open);
    this.#drawCode();
  }

  #drawTotals() {
    const { input, output, cost } = kept.totals(this.#conversation);
    this.totals.textContent = `${plural(input + output, "token")} · ${dollars(cost)}`;
    this.totals.title = `${count(input)} in, ${count(output)} out in this conversation`;
  }

  #drawHistory() {
    this.history.show(kept.list(), this.#conversation.id);
  }

  #drawCode() {
    if (!this.panel || this.panel.hidden || this.tab !== "code") return;
    const draft = this.composer.text.trim();
    const last = draft ? null : this.#lastRequest;
    const question = draft || this.#conversation.turns.at(-1)?.user || "What do bees make?";
    const turns = draft ? this.#conversation.turns : this.#conversation.turns.slice(0, -1);
    this.code.draw(last ?? this.#request(turns, question), last !== null);
  }
}
