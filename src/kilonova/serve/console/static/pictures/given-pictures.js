// The pictures that a task starts from, and where they are to be changed.

import { choice } from "../lib/choice.js";
import { field, h } from "../lib/dom.js";
import { withMargin } from "./given.js";
import { MaskEditor, maskFor } from "./mask-editor.js";
import { Slot } from "./slot.js";
import { isPainted, MASK_WAYS, maskWay, taskOf, TASKS } from "./tasks.js";

/** Shows the part of a draft that is pictures and masks; `onChange` gets the members that are to change. */
export class GivenPictures {
  #draft = null;
  #task = null;
  #slots = new Map(); // By task and name.

  constructor({ onChange }) {
    this.onChange = onChange;
    this.places = h("div", { class: "slots" });
    this.way = h("div", { class: "mask-way" });
    this.words = h("input", {
      type: "text", maxlength: "1024", autocomplete: "off", placeholder: "the red apple",
      on: { input: () => onChange({ maskPrompt: this.words.value }) },
    });
    this.wordsField = field("What is to be replaced", this.words);
    this.editor = new MaskEditor({ onChange: () => onChange({}), onGrow: (share) => this.#grow(share) });
    this.element = h("div", { class: "given" }, h("div", { class: "given-head" }, this.places, this.way), this.wordsField, this.editor.element);
    for (const { id, slots } of TASKS) for (const slot of slots) this.#slots.set(`${id}.${slot.name}`, this.#newSlot(slot));
  }

  show(draft) {
    this.#draft = draft;
    const task = taskOf(draft);
    if (task !== this.#task) this.#showTask(task);
    const mask = isPainted(draft) ? (draft.mask = maskFor(draft)) : null;
    for (const { name } of task.slots) this.#slot(name).show(draft.pictures[name], name === "image" && mask !== null);
    this.wordsField.hidden = maskWay(draft) !== "PROMPT";
    this.wordsField.firstElementChild.textContent = task.maskWords ?? "";
    if (this.words.value !== draft.maskPrompt) this.words.value = draft.maskPrompt;
    this.chosenWay?.set(maskWay(draft));
    this.editor.element.hidden = mask === null;
    if (mask) this.editor.show(draft.pictures.image[0], mask, draft.task === "OUTPAINTING");
  }

  /** Whether every picture that the task needs is there; asks for the first one that is not. */
  complete(draft) {
    const missing = taskOf(draft).slots.find(({ name, required }) => required && draft.pictures[name].length === 0);
    if (missing) this.#slot(missing.name).demand();
    return !missing;
  }

  /** Takes a file as the picture of a slot of the task that is shown. */
  async add(name, file) {
    await this.#slot(name).add([file]);
  }

  #slot(name) {
    return this.#slots.get(`${this.#task.id}.${name}`);
  }

  #newSlot({ name, ...slot }) {
    const onChange = (list) => this.onChange({
      pictures: { ...this.#draft.pictures, [name]: list }, ...(name === "image" ? { mask: null } : {}),
    });
    return new Slot({ ...slot, onChange });
  }

  #showTask(task) {
    this.#task = task;
    this.places.replaceChildren(...task.slots.map(({ name }) => this.#slot(name).element));
    this.way.hidden = !task.maskBy;
    if (!task.maskBy) return;
    const options = Object.fromEntries(task.maskBy.map((id) => [id, MASK_WAYS[id]]));
    this.chosenWay = choice("Say where", options, maskWay(this.#draft), () => this.onChange({ maskBy: this.chosenWay.value }));
    this.way.replaceChildren(this.chosenWay.element);
  }

  async #grow(share) {
    const { pictures: { image: [picture] }, mask } = this.#draft;
    const [x, y] = [picture.width, picture.height].map((side) => Math.round(side * share));
    const larger = await withMargin(picture, x, y);
    this.onChange({ pictures: { ...this.#draft.pictures, image: [larger] }, mask: mask.grown(x, y) });
  }
}
