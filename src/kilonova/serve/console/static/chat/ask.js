// One question to the server, and its answer as it comes.

import { events, send } from "../lib/api.js";
import { toBody } from "./code.js";

/**
 * Streams the answer to `request` into `answer`, and calls `onChange` after each piece. `price` is dollars per million
 * tokens, or null. Raises ApiError; ends quietly when `signal` is aborted.
 */
export async function ask(request, answer, { price, signal, onChange }) {
  const started = performance.now();
  const since = () => (performance.now() - started) / 1000;
  // The counts come with every piece, so that those of an answer that is stopped are known too.
  const options = { include_usage: true, continuous_usage_stats: true };
  try {
    const response = await send("POST", "/v1/chat/completions", {
      body: { ...toBody(request), stream_options: options },
      signal,
    });
    for await (const event of events(response)) {
      const [choice] = event.choices;
      if (choice?.delta.content) {
        answer.firstToken ??= since();
        answer.text += choice.delta.content;
      }
      if (choice?.finish_reason) answer.finishReason = choice.finish_reason;
      if (event.usage) {
        answer.usage = toUsage(event.usage);
        answer.cost = price === null ? null : cost(answer.usage, price);
      }
      answer.duration = since();
      onChange();
    }
    answer.state = "done";
  } catch (error) {
    answer.duration = since();
    if (error.name !== "AbortError") throw error;
    answer.state = "stopped";
  }
}

function toUsage(usage) {
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  return { input: usage.prompt_tokens, cached, output: usage.completion_tokens };
}

function cost({ input, cached, output }, price) {
  return ((input - cached) * price.input + cached * price.cache_read + output * price.output) / 1e6;
}

// Pieces that come closer together than this came in one packet, whose time says nothing about the model.
const MEASURABLE = 0.02;

/** Tokens a second once the first has come; null where there is too little to tell. */
export function speed({ usage, firstToken, duration }) {
  if (!usage || usage.output < 2 || firstToken === null || duration - firstToken < MEASURABLE) return null;
  return (usage.output - 1) / (duration - firstToken);
}
