/** Small drawings of numbers. Each has its numbers as text beside it or in its label. */
import { h, s } from "./dom";
import type { Exact } from "./document";
import { integer, percent, range, real, short } from "./format";

/** Bars of counts, with what the axis begins and ends with. */
export function histogram(counts: readonly number[], label: string, ends?: [string, string]): HTMLElement {
  const [width, height] = [264, 64];
  const most = Math.max(...counts, 1);
  const step = width / counts.length;
  const bars = counts.map((count, i) => {
    const tall = count === 0 ? 0 : Math.max(1, (count / most) * height);
    return s("rect", { x: i * step, y: height - tall, width: Math.max(step - 1, 0.6), height: tall, class: "bar" });
  });
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, class: "histogram", role: "img", "aria-label": label }, ...bars);
  return h("figure", {}, svg, ends ? axis(...ends) : null);
}

function axis(first: string, last: string): HTMLElement {
  return h("div", { class: "axis" }, h("span", {}, first), h("span", {}, last));
}

/** How often each spike count came, 0 to D, each bar with its number. */
export function countHistogram(histogramOf: readonly number[]): HTMLElement {
  const total = histogramOf.reduce((a, b) => a + b, 0) || 1;
  const rows = histogramOf.map((count, value) => ({ label: String(value), value: count / total, text: percent(count / total) }));
  return rows.length <= 20 ? bars(rows, 1) : histogram(histogramOf, "spike counts", ["0", String(rows.length - 1)]);
}

export interface Bar {
  label: string;
  value: number;
  text: string;
  strong?: boolean;
}

/** Horizontal bars, one a line, with names before and numbers after. */
export function bars(rows: readonly Bar[], most = Math.max(...rows.map((row) => row.value), 0)): HTMLElement {
  const lines = rows.map((row) => h("tr", { class: row.strong ? "strong" : "" },
    h("th", { scope: "row" }, row.label), h("td", { class: "track" }, meter(row.value, most)), h("td", { class: "number" }, row.text)));
  return h("table", { class: "bars" }, h("tbody", {}, ...lines));
}

/** A thin bar: `value` of `most`. */
export function meter(value: number, most: number, mark?: number): SVGElement {
  const share = most > 0 ? Math.min(value / most, 1) : 0;
  const line = mark !== undefined && most > 0 && mark <= most
    ? s("rect", { x: (mark / most) * 100 - 0.5, y: 0, width: 1, height: 8, class: "mark" }) : null;
  return s("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", class: "meter", "aria-hidden": "true" },
    s("rect", { x: 0, y: 1, width: 100, height: 6, class: "track" }),
    s("rect", { x: 0, y: 1, width: share > 0 ? Math.max(share * 100, 0.8) : 0, height: 6, class: "bar" }), line);
}

/** A number with a thin bar under it. */
export function withMeter(text: string, value: number | null | undefined, most: number): HTMLElement {
  return h("span", { class: "metered" }, h("span", {}, text), meter(value ?? 0, most));
}

/** What was proved of a potential and, in it, what was observed. */
export function rangeBar(proved: [Exact, Exact], observed: [Exact, Exact] | null | undefined): HTMLElement {
  const [low, high] = proved.map(Number) as [number, number];
  const place = (at: Exact) => ((Number(at) - low) / (high - low || 1)) * 264;
  const seen = observed
    ? [s("rect", { x: place(observed[0]), y: 2, width: Math.max(place(observed[1]) - place(observed[0]), 1), height: 8, class: "bar" })] : [];
  const zero = low <= 0 && high >= 0 ? [s("rect", { x: place(0) - 0.5, y: 0, width: 1, height: 12, class: "mark" })] : [];
  const label = `proved ${range(...proved)}${observed ? `, observed ${range(...observed)}` : ""}`;
  const svg = s("svg", { viewBox: "0 0 264 12", class: "range", role: "img", "aria-label": label },
    s("rect", { x: 0, y: 2, width: 264, height: 8, class: "track" }), ...seen, ...zero);
  return h("figure", {}, svg, axis(real(proved[0]), real(proved[1])));
}

/** The levels of each spike over channels: from the lowest to the highest, the median marked. */
export function levelsPlot(levels: { spike: number[]; low: Exact[]; median: Exact[]; high: Exact[] }): HTMLElement {
  const values = [...levels.low, ...levels.high].map(Number);
  const [low, high] = [Math.min(...values, 0), Math.max(...values, 0)];
  const place = (at: Exact | undefined) => 18 + ((Number(at ?? 0) - low) / (high - low || 1)) * 246;
  const lines = levels.spike.flatMap((spike, i) => {
    const y = 6 + i * 12;
    return [
      s("text", { x: 0, y: y + 4, class: "tiny" }, String(spike)),
      s("rect", { x: place(levels.low[i]), y: y - 2, width: Math.max(place(levels.high[i]) - place(levels.low[i]), 1), height: 4, class: "soft" }),
      s("rect", { x: place(levels.median[i]) - 1, y: y - 4, width: 2, height: 8, class: "bar" }),
    ];
  });
  const height = levels.spike.length * 12 + 2;
  const svg = s("svg", { viewBox: `0 0 264 ${height}`, class: "levels", role: "img", "aria-label": "levels of each spike, lowest to highest channel" }, ...lines);
  return h("figure", {}, svg, axis(real(low), real(high)));
}

/** Numbers over clock ticks as a filled line. */
export function series(values: readonly number[], label: string): HTMLElement {
  const [width, height] = [960, 96];
  const most = Math.max(...values, 1e-12);
  const step = width / values.length;
  const corners = values.map((value, i) => `L${i * step},${height - (value / most) * height}L${(i + 1) * step},${height - (value / most) * height}`);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "series", role: "img", "aria-label": label },
    s("path", { d: `M0,${height}${corners.join("")}L${width},${height}Z`, class: "area" }));
  return h("figure", { class: "wide" }, svg, axis("tick 0", `tick ${integer(values.length - 1)}; highest ${short(most)}`));
}

/** Shares of ticks as cells, darker where more neurons fire. */
export function heat(nsfr: readonly number[][], most: number): SVGElement {
  const cells = nsfr.flat();
  const step = 12;
  const rects = cells.map((share, i) => s("rect", {
    x: i * step, y: 0, width: step - 1, height: 12, class: "cell", "fill-opacity": (0.04 + 0.96 * Math.sqrt(share / (most || 1))).toFixed(3),
  }, s("title", {}, `tick ${i}: ${percent(share)}`)));
  const width = cells.length * step;
  return s("svg", { viewBox: `0 0 ${width} 12`, width: Math.min(width, 480), height: 12, preserveAspectRatio: "none", class: "heat", role: "img",
    "aria-label": `share of neurons that fire, by tick: ${cells.slice(0, 16).map(percent).join(", ")}` }, ...rects);
}
