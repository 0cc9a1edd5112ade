// Stacked bars over days, as SVG drawn to the width there is.

import { h, s } from "./dom.js";

const HEIGHT = 250;
const MARGIN = { top: 12, right: 8, bottom: 28 };
const LABEL_WIDTH = 64;
const CHARACTER_WIDTH = 6.8;
const NUM_COLOURS = 6;

/**
 * `days` are labels; `series` are { name, values } with a value for each day; `format` writes values. What the chart
 * shows must be in a table too: a picture of bars says nothing to those who cannot see it.
 */
export function barChart(title, days, series, format) {
  const svg = s("svg", { role: "img", "aria-label": title, height: HEIGHT });
  const legend = series.map(({ name }, index) => h("li", {}, h("i", { class: colour(index) }), name));
  const figure = h("figure", { class: "chart" }, svg, h("figcaption", {}, h("ul", { class: "legend" }, legend)));
  let width = 0;
  new ResizeObserver(() => {
    if (svg.clientWidth === width || svg.clientWidth === 0) return;
    width = svg.clientWidth;
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.replaceChildren(...draw(width, days, series, format));
  }).observe(figure);
  return figure;
}

function draw(width, days, series, format) {
  const sums = days.map((_, day) => series.reduce((sum, each) => sum + each.values[day], 0));
  const ticks = niceTicks(Math.max(...sums));
  const top = ticks.at(-1);
  const left = 14 + CHARACTER_WIDTH * Math.max(...ticks.map((tick) => format(tick).length));
  const height = HEIGHT - MARGIN.top - MARGIN.bottom;
  const step = (width - left - MARGIN.right) / days.length;
  const every = Math.ceil(LABEL_WIDTH / step);
  const y = (value) => MARGIN.top + height * (1 - value / top);
  const x = (day) => left + step * day;

  const grid = ticks.map((tick) => s("g", { class: "tick" },
    s("line", { x1: left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
    s("text", { x: left - 8, y: y(tick), "text-anchor": "end", "dominant-baseline": "central" }, format(tick))));
  // Counted from the end, so that today always has its label.
  const labels = days.map((label, day) => (days.length - 1 - day) % every ? null : s("text", {
    class: "day", x: Math.min(x(day + 0.5), width - 22), y: HEIGHT - 8, "text-anchor": "middle",
  }, label)).filter(Boolean);
  const bars = days.map((label, day) => {
    let below = 0;
    const parts = series.map(({ values }, index) => {
      below += values[day];
      return values[day] > 0 && s("rect", {
        class: colour(index), x: x(day + 0.15), y: y(below), width: step * 0.7, rx: Math.min(2, step / 8),
        height: Math.max(1, (height * values[day]) / top),
      });
    });
    const lines = series.filter(({ values }) => values[day]).map(({ name, values }) => `${name}: ${format(values[day])}`);
    const whole = s("rect", { class: "hover", x: x(day), y: MARGIN.top, width: step, height });
    return s("g", { class: "bar" }, s("title", {}, [label, ...lines].join("\n")), whole, parts);
  });
  return [...grid, ...labels, ...bars];
}

const colour = (index) => `series-${index % NUM_COLOURS}`;

/** From 0 to just above `largest`, in steps of 1, 2 or 5 times a power of ten. */
function niceTicks(largest) {
  if (largest <= 0) return [0, 1];
  const rough = largest / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  return Array.from({ length: Math.ceil(largest / step - 1e-9) + 1 }, (_, index) => index * step);
}
