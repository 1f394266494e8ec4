/** Spike counts of single samples, and the trains that they stand for. */
import type { CountMap } from "./document";

/** Counts, uint8 in C order, (T, ...shape). */
export interface Counts {
  timesteps: number;
  /** Of a sample in a timestep, as channels, rows and columns. */
  size: [number, number, number];
  data: Uint8Array;
}

export async function unpacked(map: CountMap): Promise<Counts> {
  const packed = Uint8Array.from(atob(map.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const data = new Uint8Array(await new Response(stream).arrayBuffer());
  const [timesteps = 1, ...shape] = map.shape;
  return { timesteps, size: asMap(shape), data };
}

/** (C, H, W); a vector is drawn in rows of about as many as there are rows. */
export function asMap(shape: number[]): [number, number, number] {
  const [channels = 1, ...rest] = shape;
  const [rows, columns] = [rest[0] ?? 1, rest.slice(1).reduce((a, b) => a * b, 1)];
  return [channels, rows, columns];
}

/**
 * Whether neurons fire in a tick: 0 or 1 of one channel; over all channels how many fire.
 * A neuron fires all spikes of a timestep from its first tick on: in tick k if its count is above k.
 */
export function tickMap({ size, data }: Counts, timestep: number, tick: number, channel: number | null): Uint16Array {
  const [channels, rows, columns] = size;
  const plane = rows * columns;
  const found = new Uint16Array(plane);
  const [first, last] = channel === null ? [0, channels - 1] : [channel, channel];
  for (let c = first; c <= last; c += 1) {
    const start = (timestep * channels + c) * plane;
    for (let i = 0; i < plane; i += 1) if ((data[start + i] ?? 0) > tick) found[i] = (found[i] ?? 0) + 1;
  }
  return found;
}

/** Neurons of a raster: evenly spaced ones, all where there are no more than `most`. */
export function chosen(neurons: number, most: number): number[] {
  if (neurons <= most) return Array.from({ length: neurons }, (_, i) => i);
  return Array.from({ length: most }, (_, i) => Math.floor((i * neurons) / most));
}

/** The counts of a timestep, channels changing fastest if the map has no rows. */
export function countAt({ size, data }: Counts, timestep: number, neuron: number): number {
  return data[timestep * size[0] * size[1] * size[2] + neuron] ?? 0;
}
