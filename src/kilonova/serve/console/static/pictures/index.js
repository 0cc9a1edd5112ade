// The section in which pictures are made and changed.

import { choice } from "../lib/choice.js";
import { CodePanel } from "../lib/code-panel.js";
import { h } from "../lib/dom.js";
import { dollars, plural, wait } from "../lib/format.js";
import { icon } from "../lib/icons.js";
import { modelOptions, modelsWith } from "../lib/models.js";
import { toProblem } from "../lib/problems.js";
import { session } from "../lib/session.js";
import { read, write } from "../lib/storage.js";
import { tabs } from "../lib/tabs.js";
import { costOf, invoke } from "./ask.js";
import { filesOf, toBody } from "./body.js";
import { LANGUAGES } from "./code.js";
import { CodeFiles } from "./code-files.js";
import { copyDraft, loadDraft, randomSeed, saveDraft } from "./draft.js";
import { PictureForm } from "./form.js";
import { GivenPictures } from "./given-pictures.js";
import { History } from "./history.js";
import { HistoryList } from "./history-list.js";
import { Prompt } from "./prompt.js";
import { Results } from "./results.js";
import { TASKS, taskOf } from "./tasks.js";

const PANEL = "kilonova.pictures.panel";

export const pictures = { id: "pictures", title: "Pictures", icon: "picture", mount: () => new Pictures() };

class Pictures {
  #draft = loadDraft();
  #running = null; // The AbortController of the request that is on its way.
  #request = null; // The one that was sent last, while the draft is still the same.
  #entry = null; // What is shown of the history.
  #history = new History();
  #spent = { pictures: 0, cost: 0 };

  constructor() {
    this.picker = h("select", { "aria-label": "Model", on: { change: () => this.#change({ model: this.picker.value }) } });
    this.price = h("span", { class: "muted" });
    this.totals = h("p", { class: "totals", title: "Made since this page was opened" });
    this.toggle = h("button", {
      type: "button", class: "icon-button", "aria-label": "Settings and code", title: "Settings and code (Alt+S)",
      "aria-expanded": "true", "aria-controls": "pictures-panel", on: { click: () => this.#showPanel(this.panel.hidden) },
    }, icon("panel"));
    this.task = choice("Task", Object.fromEntries(TASKS.map(({ id, title }) => [id, title])), this.#draft.task,
      () => this.#change({ task: this.task.value }));
    this.hint = h("p", { class: "muted" });
    this.given = new GivenPictures({ onChange: (change) => this.#change(change) });
    this.prompt = new Prompt({
      onMake: () => this.#make(), onStop: () => this.#stop(), onInput: (text) => this.#change({ text }),
    });
    this.problem = h("div", { class: "problem", role: "alert", hidden: true });
    this.results = new Results({ onUse: (blob) => this.#use(blob), onSeed: (seed) => this.#change({ seed }) });
    this.list = new HistoryList({
      onNew: () => this.#new(), onOpen: (entry) => this.#open(entry), onRemove: (entry) => this.#forget(entry),
      onClear: () => { this.#history.clear(); this.#show(null); },
    });
    this.form = new PictureForm({ onChange: (change) => this.#change(change) });
    this.code = new CodePanel({ languages: LANGUAGES, keyed: () => !session.info?.open });
    this.files = new CodeFiles();
    this.none = noModel();
    this.element = this.#layout();
    this.side = this.list.element;
    session.addEventListener("change", () => this.#showModels());
    this.#showModels();
    this.#showPanel(read(PANEL, window.innerWidth > 1100));
    this.#history.open().then(() => this.#drawHistory());
  }

  /** What a key pressed anywhere means here. */
  shortcuts = {
    Escape: () => this.#stop(),
    "/": () => this.prompt.focus(),
    "Alt+KeyN": () => this.#new(),
    "Alt+KeyS": () => this.#showPanel(this.panel.hidden),
  };

  shown() {
    if (matchMedia("(pointer: fine)").matches && this.none.hidden) this.prompt.focus();
  }

  #layout() {
    const panelTabs = tabs("Settings and code", [
      { id: "settings", title: "Settings", panel: this.form.element },
      { id: "code", title: "Code", panel: h("div", {}, this.code.element, this.files.element) },
    ], (id) => { this.tab = id; this.#drawCode(); });
    this.panel = h("aside", { class: "panel", id: "pictures-panel", "aria-label": "Settings and code" }, panelTabs.element);
    const head = h("header", { class: "chat-head" },
      h("h1", { class: "offscreen" }, "Pictures"), h("div", { class: "picker" }, this.picker, this.price), this.totals, this.toggle);
    this.work = h("div", { class: "studio-column" }, h("div", { class: "task" }, this.task.element, this.hint),
      this.given.element, this.prompt.element, this.problem, this.results.element);
    return h("div", { class: "chat pictures" },
      h("div", { class: "chat-column" }, head, h("div", { class: "studio" }, this.none, this.work)), this.panel);
  }

  #showModels() {
    const models = modelsWith("image");
    this.none.hidden = models.length > 0;
    for (const element of [this.work, this.picker, this.toggle, this.totals]) element.hidden = models.length === 0;
    if (models.length === 0) {
      this.panel.hidden = true;
      return;
    }
    this.picker.replaceChildren(...modelOptions(models));
    if (!models.some(({ name }) => name === this.#draft.model)) this.#draft.model = models[0].name;
    this.#draw();
  }

  get #model() {
    return modelsWith("image").find(({ name }) => name === this.#draft.model);
  }

  #change(change) {
    Object.assign(this.#draft, change);
    this.#request = null;
    saveDraft(this.#draft);
    this.#draw();
  }

  #draw() {
    const draft = this.#draft;
    const task = taskOf(draft);
    const { price } = this.#model;
    this.picker.value = draft.model;
    this.task.set(draft.task);
    this.hint.textContent = task.hint;
    this.price.textContent = price ? `${dollars(price.image)} a picture, ${dollars(price.image_premium)} premium` : "no price";
    this.given.show(draft);
    this.form.show(draft);
    const isReady = task.drawn || draft.pictures.image.length > 0;
    const cost = isReady ? costOf(draft, price) : null;
    this.prompt.show(draft, task, cost === null ? "" : dollars(cost));
    this.#drawTotals();
    this.#drawCode();
  }

  #drawTotals() {
    this.totals.textContent = `${plural(this.#spent.pictures, "picture")} · ${dollars(this.#spent.cost)}`;
  }

  #drawHistory() {
    this.list.show(this.#history.entries, this.#entry);
  }

  #drawCode() {
    if (!this.panel || this.panel.hidden || this.tab !== "code" || !this.#model) return;
    const request = this.#request ?? this.#toRequest(this.#draft);
    this.code.draw(request, this.#request !== null);
    this.files.show(filesOf(request.body));
  }

  #toRequest(draft) {
    const model = this.#model;
    return { model: model.name, modelId: model.bedrock_id ?? model.name, body: toBody(draft) };
  }

  async #make() {
    if (this.#running || !this.#model || !this.given.complete(this.#draft)) return;
    const draft = { ...copyDraft(this.#draft), seed: this.#draft.seed ?? randomSeed() };
    const request = (this.#request = this.#toRequest(draft));
    const running = (this.#running = new AbortController());
    const cost = costOf(draft, this.#model.price);
    const started = performance.now();
    this.prompt.busy = true;
    this.problem.hidden = true;
    this.#drawCode();
    try {
      const made = await invoke(request, running.signal);
      session.set("ready");
      const { width, height } = await createImageBitmap(made.pictures[0]);
      const duration = (performance.now() - started) / 1000;
      const entry = { id: `${Date.now()}-${Math.random()}`, time: Date.now(), draft, ...made, size: [width, height], duration, cost };
      this.#spent.pictures += made.pictures.length;
      this.#spent.cost += cost ?? 0;
      this.#history.add(entry);
      this.#show(entry);
      this.#drawTotals();
    } catch (error) {
      if (error.name !== "AbortError") this.#showProblem(error);
    }
    this.#running = null;
    this.prompt.busy = false;
  }

  #stop() {
    this.#running?.abort();
  }

  #showProblem(error) {
    const { title, message } = toProblem(error);
    const again = error.retryAfter ? ` Try again in ${wait(error.retryAfter)}.` : "";
    this.problem.hidden = false;
    this.problem.replaceChildren(icon("warning"),
      h("div", {}, h("p", { class: "problem-title" }, title), h("p", {}, message + again)));
  }

  #show(entry) {
    this.#entry = entry;
    this.results.show(entry);
    this.#drawHistory();
    if (entry) this.results.element.scrollIntoView({ block: "nearest" });
  }

  #new() {
    this.#change({ text: "", pictures: { image: [], reference: [], images: [] }, mask: null });
    this.problem.hidden = true;
    this.#show(null);
    this.prompt.focus();
  }

  /** Shows what was made, and what it was made from. */
  #open(entry) {
    const { model } = this.#draft;
    const kept = copyDraft(entry.draft);
    this.#change({ ...kept, model: modelsWith("image").some(({ name }) => name === kept.model) ? kept.model : model });
    this.problem.hidden = true;
    this.#show(entry);
  }

  #forget(entry) {
    this.#history.remove(entry.id);
    this.#show(entry === this.#entry ? null : this.#entry);
  }

  async #use(blob) {
    const task = taskOf(this.#draft);
    const slot = task.slots[0].required ? task.slots[0].name : "image";
    if (slot === "image" && !task.slots[0].required) this.#change({ task: "INPAINTING" });
    await this.given.add(slot, new File([blob], "result.png", { type: "image/png" }));
    this.given.element.scrollIntoView({ block: "nearest" });
  }

  #showPanel(open) {
    this.panel.hidden = !open || modelsWith("image").length === 0;
    this.toggle.setAttribute("aria-expanded", open);
    write(PANEL, open);
    this.#drawCode();
  }
}

function noModel() {
  return h("div", { class: "empty" }, icon("picture"), h("h2", {}, "No model here makes pictures"),
    h("p", {}, "Start the server with the folder of one: ", h("code", {}, "kilonova serve --model canvas=FOLDER"), "."),
    h("p", {}, "A run of ", h("code", {}, "kilonova train canvas/flow"), " leaves such a folder."));
}
