// The lines that ask a server the same with curl, openai and boto3.

import { bedrockClient, keywords, openaiClient } from "../lib/python.js";

/**
 * A chat request is { model, bedrockId, system, messages: [{ role, text }], temperature, topP, maxTokens, seed }, where
 * the last two may be null. `url` is the server's, and `keyed` says whether it asks for a key.
 */
export const LANGUAGES = [
  { id: "curl", title: "curl", operation: "chat.completions", write: writeCurl },
  { id: "openai", title: "openai", operation: "chat.completions", write: writeOpenai },
  { id: "boto3", title: "boto3", operation: "ConverseStream", write: writeBoto3 },
];

/** The body of POST /v1/chat/completions. */
export function toBody(request) {
  const system = request.system.trim() ? [{ role: "system", content: request.system }] : [];
  const messages = request.messages.map(({ role, text }) => ({ role, content: text }));
  const body = {
    model: request.model,
    messages: [...system, ...messages],
    temperature: request.temperature,
    top_p: request.topP,
  };
  if (request.maxTokens !== null) body.max_tokens = request.maxTokens;
  if (request.seed !== null) body.seed = request.seed;
  return { ...body, stream: true };
}

function writeCurl(request, url, keyed) {
  const lines = [`curl -sN ${url}/v1/chat/completions`, "-H 'content-type: application/json'"];
  if (keyed) lines.push('-H "authorization: Bearer $KILONOVA_API_KEY"');
  lines.push(`-d '${JSON.stringify(toBody(request), null, 2).replaceAll("'", String.raw`'\''`)}'`);
  return lines.join(" \\\n  ");
}

function writeOpenai(request, url, keyed) {
  return [
    ...(keyed ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    openaiClient(url, keyed),
    `stream = client.chat.completions.create(${keywords(toBody(request))})`,
    "for chunk in stream:",
    "    if chunk.choices:",
    '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
  ].join("\n");
}

function writeBoto3(request, url, keyed) {
  const inference = { temperature: request.temperature, topP: request.topP };
  if (request.maxTokens !== null) inference.maxTokens = request.maxTokens;
  const values = {
    modelId: request.bedrockId,
    ...(request.system.trim() ? { system: [{ text: request.system }] } : {}),
    messages: request.messages.map(({ role, text }) => ({ role, content: [{ text }] })),
    inferenceConfig: inference,
    ...(request.seed === null ? {} : { additionalModelRequestFields: { inferenceConfig: { seed: request.seed } } }),
  };
  return [
    "import boto3",
    "",
    ...bedrockClient(url, keyed),
    `answer = bedrock.converse_stream(${keywords(values)})`,
    'for event in answer["stream"]:',
    '    if "contentBlockDelta" in event:',
    '        print(event["contentBlockDelta"]["delta"].get("text", ""), end="", flush=True)',
  ].join("\n");
}
