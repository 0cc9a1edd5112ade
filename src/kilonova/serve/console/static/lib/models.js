// The models of the server, as a section chooses among them.

import { h } from "./dom.js";
import { session } from "./session.js";

/** Those whose answers are of a modality, "text" or "image". */
export function modelsWith(modality) {
  return (session.info?.models ?? []).filter((model) => model.output_modalities.includes(modality));
}

/** The options of a list of models; names tell those apart whose titles are the same. */
export function modelOptions(models) {
  const titles = models.map((model) => model.display_name);
  return models.map(({ name, display_name: title }) =>
    h("option", { value: name }, titles.indexOf(title) === titles.lastIndexOf(title) ? title : `${title} (${name})`));
}
