// The settings of a picture.

import { field, h } from "../lib/dom.js";
import { defaultSettings, MAX_SEED } from "./draft.js";
import { Palette } from "./palette.js";
import { GARMENTS, isPainted, maskWay, STYLES, taskOf, words } from "./tasks.js";

const SIZES = [[512, 512], [768, 512], [512, 768], [1024, 1024], [1280, 720], [720, 1280], [1536, 1024], [1024, 1536]];
const LIMITS = { min: 320, max: 4096, step: 16 };

/** The form of the draft that `show` was given last; `onChange` gets the members that are to change. */
export class PictureForm {
  #draft = null;
  #controls = []; // [name, control, shown form of a value]
  #parts = []; // [element, whether a draft wants it]

  constructor({ onChange }) {
    this.onChange = onChange;
    this.element = h("form", { class: "settings", on: { submit: (event) => event.preventDefault() } });
    const task = (...ids) => (draft) => ids.includes(draft.task);
    const hasLines = (draft) => draft.task === "TEXT_IMAGE" && draft.pictures.reference.length > 0;
    const isGarment = (draft) => maskWay(draft) === "GARMENT";
    const isDrawn = (draft) => taskOf(draft).drawn;
    const isSettled = (draft) => draft.task !== "BACKGROUND_REMOVAL";
    this.#add(task("TEXT_IMAGE"), "Style", this.#select("style", { "": "None", ...named(STYLES) }));
    this.palette = new Palette((colors) => onChange({ colors }));
    this.#part(task("COLOR_GUIDED_GENERATION"), this.palette.element);
    this.#add(task("IMAGE_VARIATION"), "Similarity", this.#slider("similarity", 0.2, 1, 0.05), "1 is as close as it gets.");
    this.#add(hasLines, "Follow its", this.#select("controlMode", { CANNY_EDGE: "Edges", SEGMENTATION: "Regions" }));
    this.#add(hasLines, "Strength", this.#slider("controlStrength", 0, 1, 0.05), "How closely the lines are followed.");
    this.#add(task("OUTPAINTING"), "Border", this.#select("outPaintingMode", {
      DEFAULT: "May blend in", PRECISE: "Exactly as painted",
    }));
    this.#addTryOn(task("VIRTUAL_TRY_ON"), isGarment);
    this.#part(isDrawn, this.#sizes());
    this.#add(isSettled, "Pictures", this.#number("numberOfImages", { min: 1, max: 5, required: true }), "1 to 5, with seeds that go up by one.");
    this.#add(isSettled, "Seed", this.#number("seed", { min: 0, max: MAX_SEED, placeholder: "another each time" }), "The same seed and request give the same picture.");
    this.#add(isSettled, "Cfg scale", this.#slider("cfgScale", 1.1, 10, 0.1), "Higher keeps closer to the words.");
    this.#add(isSettled, "Quality", this.#select("quality", { standard: "Standard", premium: "Premium" }), "Premium takes more steps.");
    this.#add((draft) => taskOf(draft).text, "Negative prompt", this.#text("negativeText"), "What is not to be seen.");
    this.#part(() => true, h("button", { type: "button", class: "quiet", on: { click: () => onChange(defaultSettings()) } }, "Back to the defaults"));
  }

  show(draft) {
    this.#draft = draft;
    for (const [element, isWanted] of this.#parts) element.hidden = !isWanted(draft);
    for (const [name, control, toValue] of this.#controls) {
      if (control.output) control.output.textContent = draft[name].toFixed(2).replace(/0$/, "");
      if (document.activeElement === control && control.matches("input:not([type=range], [type=checkbox]), textarea")) continue;
      if (control.type === "checkbox") control.checked = draft[name];
      else control.value = toValue(draft[name]);
      control.removeAttribute("aria-invalid");
    }
    this.palette.show(draft.colors);
    const size = `${draft.width}x${draft.height}`;
    this.size.value = [...this.size.options].some(({ value }) => value === size) ? size : "";
  }

  #addTryOn(isTryOn, isGarment) {
    const hasShape = (draft) => isTryOn(draft) && !isPainted(draft);
    const styling = (name, options) => this.#select(name, { "": "As it comes", ...options });
    this.#add(isGarment, "Garment", this.#select("garmentClass", named(GARMENTS)));
    this.#add(hasShape, "Shape of the mask", this.#select("maskShape", named(["DEFAULT", "CONTOUR", "BOUNDING_BOX"])));
    this.#add(isTryOn, "Merge", this.#select("mergeStyle", named(["BALANCED", "SEAMLESS", "DETAILED"])));
    this.#add(isTryOn, "Keep pose, hands and face", this.#select("preserve", { DEFAULT: "As usual", ON: "Yes", OFF: "No" }));
    this.#part(isGarment, h("details", {}, h("summary", {}, "How it is worn"), h("div", { class: "columns" },
      field("Sleeves", styling("longSleeveStyle", { SLEEVE_DOWN: "Down", SLEEVE_UP: "Up" })),
      field("Tucked", styling("tuckingStyle", { UNTUCKED: "No", TUCKED: "Yes" })),
      field("Outer layer", styling("outerLayerStyle", { CLOSED: "Closed", OPEN: "Open" })))));
    const mask = h("input", { type: "checkbox", on: { change: () => this.onChange({ returnMask: mask.checked }) } });
    this.#controls.push(["returnMask", mask, Boolean]);
    this.#part(isTryOn, h("label", { class: "check" }, mask, "Show the mask that was used"));
  }

  #sizes() {
    const options = Object.fromEntries(SIZES.map(([width, height]) => [`${width}x${height}`, `${width} × ${height}`]));
    this.size = h("select", { on: { change: () => this.#pickSize() } }, toOptions({ ...options, "": "As below" }));
    return h("div", { class: "sizes" }, field("Size", this.size),
      field("Width", this.#number("width", { ...LIMITS, required: true })),
      field("Height", this.#number("height", { ...LIMITS, required: true })),
      h("p", { class: "hint" }, "320 to 4096 pixels, in steps of 16."));
  }

  #pickSize() {
    const [width, height] = this.size.value.split("x").map(Number);
    if (width) this.onChange({ width, height });
  }

  #part(isWanted, element) {
    this.#parts.push([element, isWanted]);
    this.element.append(element);
  }

  #add(isWanted, label, control, hint = "") {
    const element = field(label, control, hint);
    if (control.type === "range") {
      control.output = h("output", { for: control.id });
      element.firstElementChild.after(control.output);
      element.classList.add("with-value");
    }
    this.#part(isWanted, element);
  }

  #control(name, control, toValue = String) {
    this.#controls.push([name, control, toValue]);
    return control;
  }

  #select(name, options) {
    return this.#control(name, h("select", { on: { change: ({ target }) => this.onChange({ [name]: target.value }) } }, toOptions(options)));
  }

  #slider(name, min, max, step) {
    return this.#control(name, h("input", {
      type: "range", min, max, step, on: { input: ({ target }) => this.onChange({ [name]: Number(target.value) }) },
    }));
  }

  #text(name) {
    return this.#control(name, h("textarea", { rows: "2", maxlength: "1024", on: { input: ({ target }) => this.onChange({ [name]: target.value }) } }));
  }

  #number(name, attributes) {
    const change = ({ target }) => {
      const valid = target.checkValidity();
      target.setAttribute("aria-invalid", !valid);
      if (valid) this.onChange({ [name]: target.value === "" ? null : Number(target.value) });
    };
    return this.#control(name, h("input", { type: "number", step: "1", inputmode: "numeric", ...attributes, on: { input: change } }),
      (value) => value ?? "");
  }
}

const named = (constants) => Object.fromEntries(constants.map((each) => [each, words(each)]));

const toOptions = (options) => Object.entries(options).map(([value, title]) => h("option", { value }, title));
