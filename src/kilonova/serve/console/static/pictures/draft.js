// What is to be asked for, as the page's controls hold it.

import { read, write } from "../lib/storage.js";
import { Mask } from "./mask.js";
import { TASKS } from "./tasks.js";

const SETTINGS = "kilonova.pictures";
export const MAX_SEED = 2_147_483_646;

const DEFAULTS = {
  style: "", controlMode: "CANNY_EDGE", controlStrength: 0.7, colors: ["#c2541f", "#2f6f8f", "#d8c55c"], similarity: 0.7,
  outPaintingMode: "DEFAULT", garmentClass: "UPPER_BODY", maskShape: "DEFAULT", mergeStyle: "BALANCED", preserve: "DEFAULT",
  longSleeveStyle: "", tuckingStyle: "", outerLayerStyle: "", returnMask: false,
  width: 512, height: 512, numberOfImages: 1, seed: null, cfgScale: 6.5, quality: "standard",
};

export const defaultSettings = () => structuredClone(DEFAULTS);

/**
 * A draft is the settings above and { model, task, text, negativeText, maskBy, maskPrompt, pictures, mask }. `pictures`
 * has a list for each slot's name, of { blob, width, height, extension }; `mask` is a Mask of the size of the first
 * `image`, or null; `seed` is null where each request draws its own.
 */
export function loadDraft() {
  const kept = read(SETTINGS, {});
  const draft = {
    ...defaultSettings(), model: "", task: TASKS[0].id, text: "", negativeText: "", maskBy: "", maskPrompt: "", ...kept,
    pictures: { image: [], reference: [], images: [] }, mask: null,
  };
  if (!TASKS.some(({ id }) => id === draft.task)) draft.task = TASKS[0].id;
  return draft;
}

/** Keeps all but the pictures for the next visit. */
export function saveDraft(draft) {
  write(SETTINGS, { ...draft, pictures: undefined, mask: undefined });
}

/** One that does not change with the page; pictures are shared, for they never change. */
export function copyDraft(draft) {
  return {
    ...draft, colors: [...draft.colors], mask: draft.mask && new Mask(draft.mask.width, draft.mask.height, draft.mask.data.slice()),
    pictures: Object.fromEntries(Object.entries(draft.pictures).map(([name, list]) => [name, [...list]])),
  };
}

export const randomSeed = () => Math.floor(Math.random() * MAX_SEED);
