// What Markdown knows inside a paragraph, as nodes. Pictures are left out: they would be fetched from somewhere.

import { h } from "../lib/dom.js";

// A paragraph longer than this is shown as it is, so that no text takes long to read.
const MAX_LENGTH = 10_000;
const MAX_DEPTH = 6;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const SPACE = /\s/;
const WORD = /[\p{L}\p{N}]/u;
const ADDRESS = /https?:\/\/[^\s<>"]+/y;
const STYLES = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

/** The nodes of a paragraph's text. */
export function inline(text, depth = 0) {
  if (text.length > MAX_LENGTH || depth > MAX_DEPTH) return [text];
  const nodes = [];
  let plain = "";
  let at = 0;
  while (at < text.length) {
    const found = read(text, at, depth);
    if (found === null) {
      plain += text[at];
      at += 1;
      continue;
    }
    const [length, node] = found;
    if (typeof node === "string") plain += node;
    else {
      if (plain) nodes.push(plain);
      plain = "";
      nodes.push(node);
    }
    at += length;
  }
  if (plain) nodes.push(plain);
  return nodes;
}

/** What starts at `at`: its length and its node or text; null where it is a character like any other. */
function read(text, at, depth) {
  switch (text[at]) {
    case "\\":
      return PUNCTUATION.test(text[at + 1] ?? "") ? [2, text[at + 1]] : null;
    case "\n":
      return [1, h("br")];
    case "`":
      return readCode(text, at);
    case "[":
      return readLink(text, at, depth);
    case "*":
    case "_":
    case "~":
      return readStyle(text, at, depth);
    case "h":
      return readAddress(text, at);
    default:
      return null;
  }
}

function readCode(text, at) {
  const ticks = /^`+/.exec(text.slice(at, at + 20))[0];
  let end = text.indexOf(ticks, at + ticks.length);
  while (end >= 0 && text[end + ticks.length] === "`") {
    while (text[end] === "`") end += 1;
    end = text.indexOf(ticks, end);
  }
  if (end < 0) return [ticks.length, ticks];
  let code = text.slice(at + ticks.length, end).replaceAll("\n", " ");
  if (/^ .*[^ ].* $/.test(code)) code = code.slice(1, -1);
  return [end + ticks.length - at, h("code", {}, code)];
}

function readLink(text, at, depth) {
  const middle = text.indexOf("](", at);
  if (middle < 0) return null;
  const end = text.indexOf(")", middle);
  const label = text.slice(at + 1, middle);
  if (end < 0 || !label || label.includes("[")) return null;
  const address = safeAddress(text.slice(middle + 2, end).trim().split(/\s/, 1)[0]);
  if (address === null) return null;
  return [end + 1 - at, link(address, inline(label, depth + 1).filter((node) => node.nodeName !== "A"))];
}

function readAddress(text, at) {
  if (at > 0 && WORD.test(text[at - 1])) return null;
  ADDRESS.lastIndex = at;
  const found = ADDRESS.exec(text)?.[0].replace(/[.,:;!?'")\]*_]{1,9}$/, "");
  const address = found && safeAddress(found);
  return address ? [found.length, link(address, [found])] : null;
}

function readStyle(text, at, depth) {
  const style = STYLES.find(([mark]) => text.startsWith(mark, at));
  if (style === undefined) return null;
  const [mark, tag] = style;
  const start = at + mark.length;
  const insideWord = mark[0] === "_" && WORD.test(text[at - 1] ?? "");
  if (insideWord || start >= text.length || SPACE.test(text[start])) return [mark.length, mark];
  for (let end = text.indexOf(mark, start + 1); end >= 0; end = text.indexOf(mark, end + 1)) {
    if (SPACE.test(text[end - 1]) || text[end - 1] === "\\") continue;
    if (mark.length === 1 && (text[end + 1] === mark || text[end - 1] === mark)) continue;
    if (mark[0] === "_" && WORD.test(text[end + mark.length] ?? "")) continue;
    return [end + mark.length - at, h(tag, {}, inline(text.slice(start, end), depth + 1))];
  }
  return [mark.length, mark];
}

/** The address if it leads to a page or a letter, else null: javascript: and its like must not be followed. */
function safeAddress(text) {
  try {
    const { protocol, href } = new URL(text);
    return ["http:", "https:", "mailto:"].includes(protocol) ? href : null;
  } catch {
    return null;
  }
}

function link(address, children) {
  return h("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, children);
}
