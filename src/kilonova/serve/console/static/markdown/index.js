// Markdown as nodes: headings, lists, quotes, tables, code, rules and paragraphs. HTML in it stays text.

import { copyButton } from "../lib/copy.js";
import { h } from "../lib/dom.js";
import { inline } from "./inline.js";

const MAX_DEPTH = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( +)(?=\S)/;

/** The nodes of a text. */
export function markdown(text) {
  return blocks(text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n"), 0);
}

function blocks(lines, depth) {
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [taken, node] = readBlock(lines, at, depth);
    nodes.push(node);
    at += taken;
  }
  return nodes;
}

/** The block that starts at line `at`: how many lines it takes, and its node. */
function readBlock(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return readFence(lines, at, fence[1], fence[2]);
  const heading = HEADING.exec(line);
  if (heading) return [1, readHeading(heading)];
  if (RULE.test(line)) return [1, h("hr")];
  if (depth < MAX_DEPTH) {
    if (QUOTE.test(line)) return readQuote(lines, at, depth);
    if (ITEM.test(line)) return readList(lines, at, depth);
  }
  return isTable(lines, at) ? readTable(lines, at) : readParagraph(lines, at, depth);
}

function readFence(lines, at, mark, language) {
  const closing = lines.findIndex((line, index) => index > at && line.trim().startsWith(mark) && !line.trim().slice(mark.length).replaceAll(mark[0], ""));
  const end = closing < 0 ? lines.length : closing;
  const code = lines.slice(at + 1, end).join("\n");
  const head = h("div", { class: "code-head" }, h("span", {}, language || "text"), copyButton(() => code));
  return [end + 1 - at, h("div", { class: "code-block" }, head, h("pre", { tabindex: "0", role: "region", "aria-label": "Code" }, h("code", {}, code)))];
}

function readHeading([, marks, text]) {
  // The page's own headings come first: the model's start below them.
  const level = Math.min(6, marks.length + 2);
  return h(`h${level}`, {}, inline(text.trim().replace(/ #{1,9}$/, "")));
}

function readQuote(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inner = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  return [end - at, h("blockquote", {}, blocks(inner, depth + 1))];
}

function readList(lines, at, depth) {
  const ordered = /\d/.test(ITEM.exec(lines[at])[2]);
  const indent = ITEM.exec(lines[at])[1].length;
  const items = [];
  let loose = false;
  let end = at;
  while (end < lines.length) {
    const line = lines[end];
    const item = ITEM.exec(line);
    const spaces = line.length - line.trimStart().length;
    if (item && spaces <= indent + 1) {
      if (spaces < indent || /\d/.test(item[2]) !== ordered || RULE.test(line)) break;
      items.push([line.slice(item[0].length)]);
    } else if (!line.trim()) {
      const next = lines[end + 1] ?? "";
      const goesOn = next.trim() && (next.startsWith(" ".repeat(indent + 2)) || ITEM.exec(next)?.[1].length === indent);
      if (!goesOn) break;
      loose = true;
      items.at(-1).push("");
    } else if (spaces > indent + 1) {
      items.at(-1).push(line.slice(Math.min(spaces, indent + (ordered ? 3 : 2))));
    } else if (!lines[end - 1].trim() || startsBlock(line)) {
      break;
    } else {
      items.at(-1).push(line.trimStart());
    }
    end += 1;
  }
  const start = ordered ? Number.parseInt(ITEM.exec(lines[at])[2], 10) : 1;
  const entries = items.map((item) => h("li", {}, tightly(blocks(item, depth + 1), loose)));
  return [end - at, h(ordered ? "ol" : "ul", start === 1 ? {} : { start }, entries)];
}

// The first paragraph of an item needs no box of its own, unless blank lines set the items apart.
function tightly(nodes, loose) {
  return loose || nodes[0]?.nodeName !== "P" ? nodes : [...nodes[0].childNodes, ...nodes.slice(1)];
}

function readParagraph(lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !startsBlock(lines[end])) end += 1;
  const text = lines.slice(at, end).map((line) => line.trim()).join("\n");
  return [end - at, h("p", {}, inline(text, depth > MAX_DEPTH ? 1 : 0))];
}

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

function cells(line) {
  const row = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return row.split("|").map((cell) => cell.trim());
}

function isTable(lines, at) {
  const next = lines[at + 1];
  return lines[at].includes("|") && next?.includes("-") && cells(next).length === cells(lines[at]).length
    && cells(next).every((cell) => /^:?-+:?$/.test(cell));
}

function readTable(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const head = h("tr", {}, cells(lines[at]).map((cell) => h("th", { scope: "col" }, inline(cell))));
  const rows = lines.slice(at + 2, end).map((line) => h("tr", {}, cells(line).map((cell) => h("td", {}, inline(cell)))));
  const table = h("table", {}, h("thead", {}, head), h("tbody", {}, rows));
  return [end - at, h("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Table" }, table)];
}
