// One request to the server, and the pictures that come of it.

import { fetchJson } from "../lib/api.js";
import { withFiles } from "./body.js";
import { taskOf } from "./tasks.js";

/** The pictures as { pictures: [Blob], mask: Blob or null }. Raises ApiError, and AbortError when `signal` says so. */
export async function invoke({ modelId, body }, signal) {
  const sent = await withFiles(body, async (file) => toBase64(await file.read()));
  signal.throwIfAborted();
  const answer = await fetchJson("POST", `/model/${encodeURIComponent(modelId)}/invoke`, { body: sent, signal });
  return { pictures: answer.images.map(toBlob), mask: answer.maskImage ? toBlob(answer.maskImage) : null };
}

// The largest picture at the usual price.
const USUAL_PIXELS = 1024 * 1024;

/** Dollars of a draft's pictures by the model's price, null where it has none. */
export function costOf(draft, price) {
  if (!price) return null;
  const { width, height } = taskOf(draft).drawn ? draft : draft.pictures.image[0];
  const large = width * height > USUAL_PIXELS ? "_large" : "";
  const isCutOut = draft.task === "BACKGROUND_REMOVAL";
  const premium = draft.quality === "premium" && !isCutOut ? "_premium" : "";
  return (isCutOut ? 1 : draft.numberOfImages) * price[`image${premium}${large}`];
}

function toBlob(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}

function toBase64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}
