// Drafts as Canvas's own JSON, in which pictures are files until it is sent.

import { maskFile } from "./png.js";
import { maskWay, taskOf } from "./tasks.js";

/** A picture in a body: `name` is what it is called in code, `read()` gives its Blob. */
export class SentFile {
  constructor(name, read) {
    this.name = name;
    this.read = read;
  }
}

// In both ways of Amazon's: painted pixels are made anew, which is black everywhere but where a picture is extended.
const MARKED = { INPAINTING: 0, OUTPAINTING: 255, VIRTUAL_TRY_ON: 0 };

const PARAMETERS = {
  TEXT_IMAGE: ["textToImageParams", (draft) => {
    const control = first(draft, "reference", "lines");
    return {
      ...texts(draft),
      ...(draft.style ? { style: draft.style } : {}),
      ...(control ? { conditionImage: control, controlMode: draft.controlMode, controlStrength: draft.controlStrength } : {}),
    };
  }],
  COLOR_GUIDED_GENERATION: ["colorGuidedGenerationParams", (draft) => ({
    ...texts(draft), colors: draft.colors, ...optional("referenceImage", first(draft, "reference", "reference")),
  })],
  IMAGE_VARIATION: ["imageVariationParams", (draft) => ({
    ...texts(draft),
    images: draft.pictures.images.map((picture, index) => file(picture, `picture-${index + 1}`)),
    similarityStrength: draft.similarity,
  })],
  INPAINTING: ["inPaintingParams", (draft) => ({
    ...texts(draft), ...optional("image", first(draft, "image", "picture")), ...maskOf(draft),
  })],
  OUTPAINTING: ["outPaintingParams", (draft) => ({
    ...texts(draft), ...optional("image", first(draft, "image", "picture")), ...maskOf(draft),
    outPaintingMode: draft.outPaintingMode,
  })],
  BACKGROUND_REMOVAL: ["backgroundRemovalParams", (draft) => optional("image", first(draft, "image", "picture"))],
  VIRTUAL_TRY_ON: ["virtualTryOnParams", tryOn],
};

/** The body of InvokeModel, with a SentFile wherever a picture goes. */
export function toBody(draft) {
  const [member, write] = PARAMETERS[draft.task];
  const body = { taskType: draft.task, [member]: write(draft) };
  if (draft.task === "BACKGROUND_REMOVAL") return body;
  const { width, height, numberOfImages, cfgScale, quality, seed } = draft;
  body.imageGenerationConfig = { ...(taskOf(draft).drawn ? { width, height } : {}), numberOfImages, quality, cfgScale, ...optional("seed", seed) };
  return body;
}

/** The pictures of a body, in order. */
export function filesOf(value) {
  if (value instanceof SentFile) return [value];
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(filesOf) : [];
}

/** The same with `change(file)` in place of each picture, which may take its time. */
export async function withFiles(value, change) {
  if (value instanceof SentFile) return change(value);
  if (Array.isArray(value)) return Promise.all(value.map((item) => withFiles(item, change)));
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).map(async ([name, item]) => [name, await withFiles(item, change)]);
  return Object.fromEntries(await Promise.all(members));
}

function tryOn(draft) {
  const way = maskWay(draft);
  const shape = { maskShape: draft.maskShape };
  const styling = Object.fromEntries(["longSleeveStyle", "tuckingStyle", "outerLayerStyle"]
    .filter((name) => draft[name]).map((name) => [name, draft[name]]));
  const masks = {
    IMAGE: () => ({ imageBasedMask: maskOf(draft) }),
    PROMPT: () => ({ promptBasedMask: { ...shape, ...maskOf(draft) } }),
    GARMENT: () => ({ garmentBasedMask: {
      ...shape, garmentClass: draft.garmentClass, ...(Object.keys(styling).length ? { garmentStyling: styling } : {}),
    } }),
  };
  const { preserve } = draft;
  return {
    ...optional("sourceImage", first(draft, "image", "picture")),
    ...optional("referenceImage", first(draft, "reference", "garment")),
    maskType: way, ...masks[way](),
    ...(preserve === "DEFAULT" ? {} : {
      maskExclusions: { preserveBodyPose: preserve, preserveHands: preserve, preserveFace: preserve },
    }),
    mergeStyle: draft.mergeStyle, returnMask: draft.returnMask,
  };
}

function texts({ text, negativeText }) {
  return { ...(text.trim() ? { text } : {}), ...(negativeText.trim() ? { negativeText } : {}) };
}

function maskOf(draft) {
  if (maskWay(draft) === "PROMPT") return draft.maskPrompt.trim() ? { maskPrompt: draft.maskPrompt } : {};
  const { mask } = draft;
  return mask ? { maskImage: new SentFile("mask.png", () => maskFile(mask, MARKED[draft.task])) } : {};
}

const file = ({ blob, extension }, name) => new SentFile(`${name}.${extension}`, async () => blob);

function first({ pictures }, slot, name) {
  return pictures[slot].length ? file(pictures[slot][0], name) : null;
}

const optional = (name, value) => (value === null ? {} : { [name]: value });
