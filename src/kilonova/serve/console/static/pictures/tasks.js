// What a picture model can be asked for, and which of the page's parts each task needs.

/**
 * A task is { id, title, verb, hint, text, drawn, slots, maskBy, maskWords }. `text` says whether it goes by a prompt,
 * `drawn` whether the size is chosen and not the given picture's. A slot is { name, title, max, required }; the picture
 * of the first one is what a mask is painted on. `maskBy` are the ways to say where, none for tasks without a mask.
 */
export const TASKS = [
  {
    id: "TEXT_IMAGE", title: "Create", verb: "Create", hint: "A picture from words.", text: true, drawn: true,
    slots: [{ name: "reference", title: "Follow the lines of a picture", max: 1 }],
  },
  {
    id: "COLOR_GUIDED_GENERATION", title: "Colours", verb: "Create", hint: "A picture from words, in colours of your own.",
    text: true, drawn: true, slots: [{ name: "reference", title: "Be like a picture", max: 1 }],
  },
  {
    id: "IMAGE_VARIATION", title: "Vary", verb: "Vary", hint: "Pictures like others.", text: true, drawn: true,
    slots: [{ name: "images", title: "Pictures to be like", max: 5, required: true }],
  },
  {
    id: "INPAINTING", title: "Replace", verb: "Replace",
    hint: "A part of a picture made anew. Without a prompt, what is there is removed.", text: true,
    slots: [{ name: "image", title: "Picture", max: 1, required: true }], maskBy: ["IMAGE", "PROMPT"],
    maskWords: "What is to be replaced",
  },
  {
    id: "OUTPAINTING", title: "Extend", verb: "Extend", hint: "A picture with new surroundings.", text: true,
    slots: [{ name: "image", title: "Picture", max: 1, required: true }], maskBy: ["IMAGE", "PROMPT"],
    maskWords: "What is to be kept",
  },
  {
    id: "BACKGROUND_REMOVAL", title: "Cut out", verb: "Cut out", hint: "What stands in front, on nothing.",
    slots: [{ name: "image", title: "Picture", max: 1, required: true }],
  },
  {
    id: "VIRTUAL_TRY_ON", title: "Try on", verb: "Try on", hint: "A person, or a room, with what another picture shows.",
    slots: [
      { name: "image", title: "Person or room", max: 1, required: true },
      { name: "reference", title: "What to put on", max: 1, required: true },
    ],
    maskBy: ["GARMENT", "IMAGE", "PROMPT"], maskWords: "What is to be replaced",
  },
];

export const MASK_WAYS = { IMAGE: "With the brush", PROMPT: "In words", GARMENT: "By garment" };

export const STYLES = [
  "3D_ANIMATED_FAMILY_FILM", "DESIGN_SKETCH", "FLAT_VECTOR_ILLUSTRATION", "GRAPHIC_NOVEL_ILLUSTRATION", "MAXIMALISM",
  "MIDCENTURY_RETRO", "PHOTOREALISM", "SOFT_DIGITAL_PAINTING",
];

export const GARMENTS = [
  "UPPER_BODY", "LOWER_BODY", "FULL_BODY", "FOOTWEAR", "LONG_SLEEVE_SHIRT", "SHORT_SLEEVE_SHIRT", "NO_SLEEVE_SHIRT",
  "OTHER_UPPER_BODY", "LONG_PANTS", "SHORT_PANTS", "OTHER_LOWER_BODY", "LONG_DRESS", "SHORT_DRESS", "FULL_BODY_OUTFIT",
  "OTHER_FULL_BODY", "SHOES", "BOOTS", "OTHER_FOOTWEAR",
];

/** A constant of the API as words: "DESIGN_SKETCH" is "Design sketch". */
export const words = (constant) =>
  (constant[0] + constant.slice(1).toLowerCase()).replaceAll("_", " ").replace(/^3d/i, "3D");

export const taskOf = (draft) => TASKS.find(({ id }) => id === draft.task);

/** How the mask of a draft's task is said, null for a task without one. */
export function maskWay(draft) {
  const { maskBy } = taskOf(draft);
  if (!maskBy) return null;
  return maskBy.includes(draft.maskBy) ? draft.maskBy : maskBy[0];
}

/** Whether a mask is painted on the draft's picture. */
export const isPainted = (draft) => maskWay(draft) === "IMAGE";
