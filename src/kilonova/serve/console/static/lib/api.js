// Requests to the server this page came from.

import { session } from "./session.js";

// What Bedrock's API says where others answer 401.
const UNKNOWN_KEY = ["MissingAuthenticationTokenException", "UnrecognizedClientException"];

/** An answer that is no success. `status` is 0 where there was no answer at all; `retryAfter` is in seconds, or null. */
export class ApiError extends Error {
  constructor(status, code, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** The response to a request whose body is sent as JSON. Raises ApiError, and AbortError when `signal` says so. */
export async function send(method, path, { body, signal, key = session.key } = {}) {
  // Other sites cannot send this header, so it tells the server that its own page asks.
  const headers = { "x-kilonova-console": "1" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key) headers.authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, {
      method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    session.set("gone");
    throw new ApiError(0, "unreachable", "The server does not answer.");
  }
  if (response.ok) return response;
  const error = await toError(response);
  const isUnknown = error.status === 401 || UNKNOWN_KEY.includes(error.code);
  if (isUnknown && key === session.key) session.set("locked");
  throw error;
}

/** The JSON of an answer. */
export async function fetchJson(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** The payloads of a stream of server-sent events, in order, until the one that says [DONE]. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let complete = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      // Read to the very end: a connection closed before it would look to the server like a client that went away.
      if (done && complete) return;
      if (done) throw new ApiError(0, "cut", "The server closed the connection before the answer was complete.");
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").find((line) => line.startsWith("data: "))?.slice("data: ".length);
        if (data === undefined) continue;
        if (data === "[DONE]") {
          complete = true;
          continue;
        }
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(200, event.error.code ?? event.error.type, event.error.message);
        yield event;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError(0, "cut", "The connection to the server broke before the answer was complete.");
  } finally {
    if (!complete) reader.cancel().catch(() => {});
  }
}

/** Asks the server about itself with `key`, and keeps the key if it is taken. Raises ApiError. */
export async function connect(key = session.key) {
  const info = await fetchJson("GET", "/kilonova/info", { key });
  session.useKey(key);
  session.set("ready", info);
}

async function toError(response) {
  const wait = Number.parseFloat(response.headers.get("retry-after") ?? "");
  let error = {};
  try {
    const body = await response.json();
    error = body.error ?? { message: body.message };
  } catch {
    // Not ours: something between us and the server answered.
  }
  const message = error.message || `The server answered with status ${response.status}.`;
  const code = error.code ?? error.type ?? response.headers.get("x-amzn-errortype") ?? "";
  return new ApiError(response.status, code, message, Number.isFinite(wait) ? wait : null);
}
