// What to say when a request could not be answered.

const TITLES = {
  0: "The server does not answer",
  400: "The server does not take this request",
  401: "The server asks for a key",
  403: "This key may not do that",
  404: "There is no such model",
  408: "This took too long",
  413: "This is too long",
  429: "Too many requests",
  503: "The server is busy",
};

/** An ApiError as { title, message, retryAt }, where the last is a time in milliseconds or null. */
export function toProblem(error) {
  const title =
    error.code === "context_length_exceeded" ? "The conversation is longer than the model's context"
    : error.code === "insufficient_quota" ? "This key has used up what it may"
    : error.code === "cut" ? "The answer was cut short"
    : TITLES[error.status] ?? "The answer failed";
  return { title, message: error.message, retryAt: error.retryAfter === null ? null : Date.now() + error.retryAfter * 1000 };
}
