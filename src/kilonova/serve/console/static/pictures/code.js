// The lines that ask a server for the same pictures with curl, openai and boto3.

import { bedrockClient, Expression, keywords, literal, openaiClient } from "../lib/python.js";
import { filesOf, SentFile } from "./body.js";

/** A request is { model, modelId, body }, where the body has a SentFile for each picture. */
export const LANGUAGES = [
  { id: "curl", title: "curl", operation: "InvokeModel", write: writeCurl },
  { id: "openai", title: "openai", operation: "images", write: writeOpenai },
  { id: "boto3", title: "boto3", operation: "InvokeModel", write: writeBoto3 },
];

// What OpenAI's API cannot be told is as good as this there.
const FIXED = { cfgScale: 6.5, similarityStrength: 0.7 };
const DRAWN_MASK = [
  '# What is transparent is made anew, as what is black in mask.png.',
  'mask = Image.open("mask.png").convert("L")',
  "mask.putalpha(mask.copy())",
  'mask.save("mask-transparent.png")',
];

function writeCurl({ modelId, body }, url, keyed) {
  const marked = JSON.stringify(map(body, ({ name }) => `\u0001${name}\u0001`), null, 2);
  // In a document the shell replaces what stands after $, ` and \.
  const text = marked.replaceAll(/[\\$`]/g, String.raw`\$&`)
    .replaceAll(/\\\\u0001(.+?)\\\\u0001/g, "$(base64 < $1 | tr -d '\\n')");
  return [
    `curl -s ${url}/model/${encodeURIComponent(modelId)}/invoke \\`,
    "  -H 'content-type: application/json' \\",
    ...(keyed ? ['  -H "authorization: Bearer $KILONOVA_API_KEY" \\'] : []),
    "  --data-binary @- <<JSON > answer.json",
    text,
    "JSON",
  ].join("\n");
}

function writeBoto3({ modelId, body }, url, keyed) {
  const files = filesOf(body).length > 0;
  return [
    "import base64",
    "import json",
    "from pathlib import Path",
    "",
    "import boto3",
    "",
    ...bedrockClient(url, keyed),
    ...(files ? ["", "def read(name):", "    return base64.b64encode(Path(name).read_bytes()).decode()", ""] : []),
    `body = ${literal(map(body, ({ name }) => new Expression(`read(${literal(name)})`)))}`,
    `answer = bedrock.invoke_model(modelId=${literal(modelId)}, body=json.dumps(body))`,
    'for number, image in enumerate(json.loads(answer["body"].read())["images"], 1):',
    '    Path(f"made-{number}.png").write_bytes(base64.b64decode(image))',
  ].join("\n");
}

function writeOpenai(request, url, keyed) {
  const call = toOpenai(request);
  if (typeof call === "string") return `# OpenAI's API has no words for ${call}: use boto3 or curl.`;
  const { method, values, mask } = call;
  return [
    "import base64",
    ...(keyed ? ["import os"] : []),
    "from pathlib import Path",
    "",
    "from openai import OpenAI",
    ...(mask ? ["from PIL import Image"] : []),
    "",
    openaiClient(url, keyed),
    ...(mask ? DRAWN_MASK : []),
    `answer = client.images.${method}(${keywords(values)})`,
    "for number, image in enumerate(answer.data, 1):",
    '    Path(f"made-{number}.png").write_bytes(base64.b64decode(image.b64_json))',
  ].join("\n");
}

/** The same as { method, values, mask }, or what it is about it that OpenAI's API cannot say. */
function toOpenai({ model, body: { taskType, imageGenerationConfig: config = {}, ...rest } }) {
  const [{ text, negativeText, style, images, image, ...others }] = Object.values(rest);
  if (!["TEXT_IMAGE", "IMAGE_VARIATION", "INPAINTING"].includes(taskType)) return "this task";
  if (others.conditionImage) return "lines to follow";
  if (others.maskPrompt) return "a mask in words";
  if (!text) return "a request without a prompt";
  if (config.cfgScale !== FIXED.cfgScale) return "a cfg scale";
  if ((others.similarityStrength ?? FIXED.similarityStrength) !== FIXED.similarityStrength) return "a similarity";
  const own = {
    ...("seed" in config ? { seed: config.seed } : {}),
    ...(negativeText ? { negative_prompt: negativeText } : {}),
    ...(style ? { style: style.toLowerCase() } : {}),
  };
  const open = (name) => new Expression(`open(${literal(name)}, "rb")`);
  const given = images ?? (image ? [image] : []);
  const mask = Boolean(others.maskImage);
  const values = {
    model,
    prompt: text,
    ...(given.length ? { image: given.map(({ name }) => open(name)) } : {}),
    ...(mask ? { mask: open("mask-transparent.png") } : {}),
    n: config.numberOfImages,
    ...(config.width ? { size: `${config.width}x${config.height}` } : {}),
    quality: config.quality === "premium" ? "high" : "medium",
    ...(Object.keys(own).length ? { extra_body: own } : {}),
  };
  return { method: taskType === "TEXT_IMAGE" ? "generate" : "edit", values, mask };
}

/** A body with `change(file)` in place of each picture. */
function map(value, change) {
  if (value instanceof SentFile) return change(value);
  if (Array.isArray(value)) return value.map((item) => map(item, change));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, map(item, change)]));
}
