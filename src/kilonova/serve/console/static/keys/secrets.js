// A new key, shown this once.

import { copyButton } from "../lib/copy.js";
import { h } from "../lib/dom.js";

const FORMS = [
  ["openai_key", "For OpenAI clients and this page", "api_key, or a bearer token"],
  ["access_key_id", "For AWS clients: access key id", "AWS_ACCESS_KEY_ID"],
  ["secret_access_key", "and its secret", "AWS_SECRET_ACCESS_KEY"],
  ["bedrock_key", "For AWS clients over HTTPS", "AWS_BEARER_TOKEN_BEDROCK"],
];

export function secretsView({ secrets }) {
  return h("div", { class: "secrets" },
    h("p", {}, "The server does not keep them: what is not copied now is lost. All of them open it in the same way."),
    FORMS.map(([name, title, hint]) => h("section", {}, h("h3", {}, title),
      h("div", { class: "secret" }, h("code", { data: { secret: name } }, secrets[name]), copyButton(() => secrets[name])),
      h("p", { class: "hint" }, hint))));
}
