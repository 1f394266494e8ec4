/** Spike maps of a population over the ticks of a sample, and its raster. */
import type { NetworkDocument, Sample } from "./document";
import { h, part } from "./dom";
import { integer, plural } from "./format";
import { type Counts, chosen, countAt, tickMap, unpacked } from "./maps";
import type { Network } from "./network";

const MOST_NEURONS = 240;
/** Maps of so many ticks are drawn side by side; of more, the first. */
const MOST_TICKS = 32;

export class MapsView {
  readonly element: HTMLElement;
  private readonly sample = h("select", { id: "map-sample" });
  private readonly population = h("select", { id: "map-population" });
  private readonly channel = h("input", { id: "map-channel", type: "number", min: 0, value: "", placeholder: "all", size: 5 });
  private readonly pictures = h("div", { class: "maps" });
  private readonly raster = h("div", { class: "rasters" });
  private readonly note = h("p", { class: "quiet", role: "status" });
  private asked = 0;

  constructor(private readonly network: Network) {
    const { maps } = network.document;
    if (!maps?.samples.length) {
      this.element = part("Spike maps", h("p", {}, missing(network.document)));
      return;
    }
    this.sample.append(...maps.samples.map((sample, i) => h("option", { value: i }, String(sample.index))));
    this.population.append(...network.populations.map((fact) => h("option", { value: fact.name }, fact.module || fact.name)));
    for (const field of [this.sample, this.population, this.channel]) field.addEventListener("change", () => void this.draw());
    const field = (label: string, input: HTMLElement) => [h("label", { for: input.id }, label), input];
    this.element = part("Spike maps and raster",
      h("p", { class: "field" }, ...field("Sample", this.sample), ...field("Population", this.population), ...field("Channel", this.channel)),
      h("p", { class: "quiet" }, `${originOf(maps.origin)}: ${plural(maps.samples.length, "sample")} of ${maps.available}. Over all channels a pixel is the stronger the more of them fire.`),
      this.note, this.pictures, h("h3", {}, "Rasters"), this.raster);
  }

  show(population: string): void {
    this.population.value = population;
    void this.draw();
  }

  /** Draws what is chosen; of several requests the last one wins. */
  async draw(): Promise<void> {
    const sample = this.network.document.maps?.samples[Number(this.sample.value)];
    const map = sample?.counts[this.population.value];
    if (!sample || !map) {
      this.note.textContent = "No map of this population is held.";
      this.pictures.replaceChildren();
      this.raster.replaceChildren();
      return;
    }
    const asked = (this.asked += 1);
    const counts = await unpacked(map);
    const input = await unpacked(sample.input);
    if (asked !== this.asked) return;
    this.paint(counts, input, sample);
    const all = await this.networkRaster(sample);
    if (asked === this.asked) this.raster.prepend(all);
  }

  /** Some neurons of every population, each in its own windows of the clock. */
  private async networkRaster(sample: Sample): Promise<HTMLElement> {
    const { ticks, timesteps } = this.network.document;
    const most = Math.max(1, Math.min(24, Math.floor(640 / this.network.populations.length)));
    const rows: Raster["rows"] = [];
    for (const fact of this.network.populations) {
      const map = sample.counts[fact.name];
      if (!map) continue;
      const counts = await unpacked(map);
      for (const neuron of chosen(counts.data.length / counts.timesteps, most)) rows.push(spikesOf(counts, neuron, fact.D ?? 1, (timestep) => ((fact.window ?? 0) + timestep) * ticks));
    }
    const last = Math.max(...this.network.populations.map((fact) => fact.window ?? 0));
    const columns = (last + timesteps) * ticks;
    return rasterFigure({ rows, columns }, `The network: up to ${plural(most, "neuron")} of each population, from the first to the last; ${plural(columns, "clock tick")}`);
  }

  private paint(counts: Counts, input: Counts, sample: Sample): void {
    const fact = this.network.facts.get(this.population.value);
    const D = fact?.D ?? 1;
    const channels = counts.size[0];
    this.channel.max = String(channels - 1);
    const wanted = Number.parseInt(this.channel.value, 10);
    const channel = Number.isNaN(wanted) ? null : Math.min(Math.max(wanted, 0), channels - 1);
    const ticks = Array.from({ length: counts.timesteps * D }, (_, i) => i);
    const maps = ticks.slice(0, MOST_TICKS).map((i) => tickMap(counts, Math.floor(i / D), i % D, channel));
    const most = Math.max(...maps.map((map) => map.reduce((a, b) => Math.max(a, b), 0)), 1);
    const total = counts.data.reduce((a, b) => a + b, 0);
    this.note.textContent = `Sample ${sample.index}: ${integer(total)} spikes of ${plural(counts.data.length / counts.timesteps, "neuron")}, ${plural(channels, "channel")} of ${counts.size[1]}×${counts.size[2]}.`;
    this.pictures.replaceChildren(
      figure(inputPicture(input), input.timesteps > 1 ? "input, first timestep" : "input"),
      ...maps.map((map, i) => figure(picture(map, [counts.size[1], counts.size[2]], most), `tick ${i}`)),
      ...(ticks.length > MOST_TICKS ? [h("p", {}, `and ${ticks.length - MOST_TICKS} more ticks`)] : []));
    this.raster.replaceChildren(rasterOf(counts, D));
  }
}

function missing(document: NetworkDocument): string {
  const held = document.profile ? "The profile holds no maps" : "The file keeps no spike counts of single samples";
  return `${held}: snncc profile FILE.snn --input DATA --maps 4 -o p.json writes them, and inspect --html --profile p.json shows them.`;
}

function originOf(origin: string): string {
  return origin === "profile" ? "From the profile" : "Samples that the file keeps";
}

/** The first timestep of the input: three channels as colours, any other number as their mean. */
function inputPicture({ size, data }: Counts): HTMLCanvasElement {
  const [channels, rows, columns] = size;
  const plane = rows * columns;
  if (channels !== 3) {
    const mean = Array.from({ length: plane }, (_, i) => Array.from({ length: channels }, (_c, c) => data[c * plane + i] ?? 0).reduce((a, b) => a + b, 0) / channels);
    return picture(mean, [rows, columns], Math.max(...mean, 1));
  }
  return painted(columns, rows, (i) => [data[i] ?? 0, data[plane + i] ?? 0, data[2 * plane + i] ?? 0, 255]);
}

function figure(canvas: HTMLCanvasElement, caption: string): HTMLElement {
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", caption);
  return h("figure", {}, canvas, h("figcaption", {}, caption));
}

/** Values as shades: the colour of text, the more of it the more there is, so that it suits both themes. */
function picture(values: ArrayLike<number>, [rows, columns]: [number, number], most: number): HTMLCanvasElement {
  const colour = ink();
  return painted(columns, rows, (i) => [...colour, Math.round((255 * (values[i] ?? 0)) / most)]);
}

function painted(columns: number, rows: number, colour: (i: number) => [number, number, number, number]): HTMLCanvasElement {
  const canvas = h("canvas", { width: columns, height: rows, class: "map" });
  const context = canvas.getContext("2d");
  if (!context) return canvas;
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i += 1) image.data.set(colour(i), 4 * i);
  context.putImageData(image, 0, 0);
  return canvas;
}

function ink(): [number, number, number] {
  const found = getComputedStyle(document.documentElement).getPropertyValue("--ink-rgb").split(",").map(Number);
  return [found[0] ?? 0, found[1] ?? 0, found[2] ?? 0];
}

interface Raster {
  /** Of each neuron the ticks in which it fires. */
  rows: number[][];
  columns: number;
}

function spikesOf(counts: Counts, neuron: number, D: number, start: (timestep: number) => number): number[] {
  return Array.from({ length: counts.timesteps }, (_, timestep) =>
    Array.from({ length: Math.min(countAt(counts, timestep, neuron), D) }, (_tick, tick) => start(timestep) + tick)).flat();
}

function rasterOf(counts: Counts, D: number): HTMLElement {
  const neurons = counts.data.length / counts.timesteps;
  const rows = chosen(neurons, MOST_NEURONS).map((neuron) => spikesOf(counts, neuron, D, (timestep) => timestep * D));
  const every = rows.length < neurons ? `${rows.length} of ${integer(neurons)} neurons, evenly spaced` : plural(neurons, "neuron");
  return rasterFigure({ rows, columns: counts.timesteps * D }, `The population: ${every}; ${plural(counts.timesteps * D, "tick")} of its windows`);
}

/** Neurons down, ticks across, a mark where one fires. */
function rasterFigure({ rows, columns }: Raster, caption: string): HTMLElement {
  const [wide, high] = [Math.max(2, Math.min(16, Math.floor(720 / columns))), rows.length > 120 ? 2 : 4];
  const canvas = h("canvas", { width: columns * wide, height: rows.length * high, class: "raster" });
  const context = canvas.getContext("2d");
  if (context) {
    context.fillStyle = `rgb(${ink().join(" ")})`;
    rows.forEach((spikes, row) => {
      for (const tick of spikes) context.fillRect(tick * wide, row * high, Math.max(1, wide - 1), Math.max(1, high - 1));
    });
  }
  return figure(canvas, caption);
}
