// The section that shows what was used.

import { fetchJson } from "../lib/api.js";
import { barChart } from "../lib/chart.js";
import { h } from "../lib/dom.js";
import { count, dollars, seconds, short, shortDay } from "../lib/format.js";
import { icon } from "../lib/icons.js";
import { choice } from "../lib/choice.js";
import { session } from "../lib/session.js";
import { table } from "../lib/table.js";

const MEASURES = {
  cost: { title: "Cost", value: (row) => Number(row.price_usd), format: dollars },
  tokens: { title: "Tokens", value: tokens, format: short },
  requests: { title: "Requests", value: (row) => row.requests, format: short },
};
const GROUPS = {
  model: { title: "Model", name: (row) => row.model || "no model" },
  key: { title: "Key", name: (row) => row.key_name || row.key || "no key" },
};
// More than this many cannot be told apart in a chart; the others become one.
const MAX_SERIES = 5;

export const usage = { id: "usage", title: "Usage", icon: "chart", mount: () => new Usage() };

class Usage {
  #data = null;

  constructor() {
    this.days = choice("Time", { 7: "7 days", 30: "30 days", 90: "90 days" }, "30", () => this.#load());
    this.group = choice("By", titles(GROUPS), "model", () => this.#load());
    this.measure = choice("Show", titles(MEASURES), "cost", () => this.#draw());
    this.body = h("div", { class: "page-body" });
    this.refresh = h("button", { type: "button", class: "quiet", on: { click: () => this.#load() } }, icon("retry"), "Refresh");
    this.element = h("div", { class: "page" },
      h("header", { class: "page-head" }, h("h1", {}, "Usage"), this.refresh),
      h("div", { class: "filters" }, this.days.element, this.group.element, this.measure.element), this.body);
  }

  shown() {
    this.#load();
  }

  async #load() {
    const group = this.group.value;
    const days = lastDays(Number(this.days.value));
    try {
      const [byDay, byGroup] = await Promise.all([
        fetchJson("GET", `/kilonova/usage?by=day&by=${group}&since=${days[0]}`),
        fetchJson("GET", `/kilonova/usage?by=${group}&since=${days[0]}`),
      ]);
      this.#data = { group, days, byDay: byDay.rows, byGroup: byGroup.rows, total: byGroup.total };
      this.#draw();
    } catch (error) {
      this.body.replaceChildren(h("p", { class: "problem", role: "alert" }, icon("warning"), explain(error)));
    }
  }

  #draw() {
    if (this.#data === null) return;
    const { total, byGroup } = this.#data;
    if (total.requests === 0) {
      this.body.replaceChildren(h("div", { class: "empty" }, icon("chart"), h("h2", {}, "Nothing used in this time"),
        h("p", {}, "Every request to a model is counted here, whoever sends it.")));
      return;
    }
    this.body.replaceChildren(this.#figures(total), this.#chart(), this.#table(byGroup));
  }

  #figures(total) {
    const wrong = [["refused", total.refused], ["failed", total.failed + total.lost], ["cancelled", total.cancelled]];
    const details = wrong.filter(([, number]) => number).map(([name, number]) => `${count(number)} ${name}`);
    const wait = total.time_to_first_token_p50;
    return h("dl", { class: "figures" },
      figure("Cost", dollars(Number(total.price_usd)), "at the prices of the time"),
      figure("Tokens", count(tokens(total)), `${count(total.output_tokens)} of them answers`),
      figure("Requests", count(total.requests), details.join(", ") || "all answered"),
      figure("First token", wait === null ? "none yet" : seconds(wait), wait === null ? "" : "half of them sooner"));
  }

  #chart() {
    const { group, days, byDay, byGroup } = this.#data;
    const { title, value, format } = MEASURES[this.measure.value];
    const name = GROUPS[group].name;
    const ranked = [...byGroup].sort((a, b) => value(b) - value(a)).map((row) => row[group]);
    const shown = ranked.length > MAX_SERIES + 1 ? ranked.slice(0, MAX_SERIES) : ranked;
    const valuesOf = (wanted) => days.map((day) =>
      byDay.filter((row) => row.day === day && wanted(row[group])).reduce((sum, row) => sum + value(row), 0));
    const series = shown.map((id) => ({
      name: name(byGroup.find((row) => row[group] === id)), values: valuesOf((each) => each === id),
    }));
    if (shown.length < ranked.length) series.push({ name: "others", values: valuesOf((each) => !shown.includes(each)) });
    return barChart(`${title} by day and ${group}`, days.map(shortDay), series, format);
  }

  #table(rows) {
    const { group } = this.#data;
    const { value } = MEASURES[this.measure.value];
    const wait = (row) => row.time_to_first_token_p50;
    return table(`Usage by ${group}`, [
      { title: GROUPS[group].title, cell: GROUPS[group].name },
      { title: "Requests", number: true, cell: (row) => count(row.requests) },
      { title: "Tokens in", number: true, cell: (row) => count(row.input_tokens + row.cache_write_tokens) },
      { title: "Cached", number: true, cell: (row) => count(row.cache_read_tokens) },
      { title: "Tokens out", number: true, cell: (row) => count(row.output_tokens) },
      { title: "First token", number: true, cell: (row) => wait(row) === null ? "none" : seconds(wait(row)) },
      { title: "Cost", number: true, cell: (row) => dollars(Number(row.price_usd)) },
    ], [...rows].sort((a, b) => value(b) - value(a)));
  }
}

function explain(error) {
  if (error.status === 403) return `${session.info?.key?.name ?? "This key"} may not see usage.`;
  return error.status === 404 ? "This server keeps no ledger." : error.message;
}

function tokens(row) {
  return row.input_tokens + row.cache_read_tokens + row.cache_write_tokens + row.output_tokens;
}

function titles(entries) {
  return Object.fromEntries(Object.entries(entries).map(([id, { title }]) => [id, title]));
}

function figure(name, value, detail) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value, h("small", {}, detail)));
}

/** The days until today in UTC, as the ledger counts them. */
function lastDays(number) {
  const today = Date.now();
  return Array.from({ length: number }, (_, index) =>
    new Date(today - (number - 1 - index) * 86_400_000).toISOString().slice(0, 10));
}
