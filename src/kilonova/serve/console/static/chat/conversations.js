// Conversations as the browser keeps them: one entry each, so that two tabs do not overwrite each other's.

import { names, read, write } from "../lib/storage.js";

const PREFIX = "kilonova.conversation.";
const CURRENT = "kilonova.current";
const SETTINGS = "kilonova.settings";
const MAX_TITLE = 60;

const DEFAULTS = { model: "", temperature: 0.7, topP: 0.9, maxTokens: null, seed: null };

/**
 * A conversation is { id, system, turns, spent, updated }; a turn is { user, answer }; an answer is { model, text, state, usage,
 * cost, firstToken, duration, finishReason, error }, where `state` is "streaming", "done", "stopped" or "failed", times
 * are in seconds, and `usage` is { input, cached, output }.
 */
export function newConversation(system = "") {
  return { id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, system, turns: [], updated: Date.now() };
}

/** The conversation that was open last, or a new one. */
export function currentConversation() {
  const found = load(read(CURRENT, ""));
  return found ?? newConversation();
}

export function load(id) {
  const found = read(PREFIX + id, null);
  if (!found?.turns) return null;
  // Whatever was streaming when the page was closed has stopped.
  for (const { answer } of found.turns) if (answer.state === "streaming") answer.state = "stopped";
  return found;
}

/** False where the browser's storage is full or turned off. */
export function save(conversation) {
  write(CURRENT, conversation.id);
  return conversation.turns.length === 0 || write(PREFIX + conversation.id, conversation);
}

export function remove(id) {
  write(PREFIX + id, null);
}

/** Id and title of every kept conversation, the latest first. */
export function list() {
  return names(PREFIX)
    .map((name) => read(name, null))
    .filter((conversation) => conversation?.turns?.length)
    .sort((a, b) => b.updated - a.updated)
    .map(({ id, turns }) => ({ id, title: title(turns[0].user) }));
}

function title(text) {
  const line = text.trim().split("\n", 1)[0];
  return line.length > MAX_TITLE ? `${line.slice(0, MAX_TITLE)}…` : line;
}

export const loadSettings = () => ({ ...DEFAULTS, ...read(SETTINGS, {}) });

export const saveSettings = (settings) => write(SETTINGS, settings);

export const defaultSettings = () => ({ ...DEFAULTS });

/** The messages for a question after `turns`; those that were never answered are left out. */
export function messages(turns, question) {
  const answered = turns.filter(({ answer }) => answer.text.trim());
  return [
    ...answered.flatMap(({ user, answer }) => [{ role: "user", text: user }, { role: "assistant", text: answer.text }]),
    { role: "user", text: question },
  ];
}

/** Tokens and dollars of all answers together, also of those that were replaced. */
export function totals(conversation) {
  const sum = { input: 0, output: 0, cost: 0, ...conversation.spent };
  for (const { answer } of conversation.turns) {
    sum.input += answer.usage?.input ?? 0;
    sum.output += answer.usage?.output ?? 0;
    sum.cost += answer.cost ?? 0;
  }
  return sum;
}
