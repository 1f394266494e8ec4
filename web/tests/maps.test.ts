import { expect, test } from "vitest";
import type { CountMap } from "../src/document";
import { asMap, chosen, countAt, tickMap, unpacked } from "../src/maps";

const data = [0, 1, 2, 3, 4, 0, 1, 0, /* second timestep */ 4, 4, 4, 4, 0, 0, 0, 0];

async function pack(): Promise<CountMap> {
  const stream = new Blob([Uint8Array.from(data)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  return { shape: [2, 2, 2, 2], data: btoa(String.fromCharCode(...bytes)) };
}

test("counts come out as they went in", async () => {
  const counts = await unpacked(await pack());
  expect([...counts.data]).toEqual(data);
  expect([counts.timesteps, counts.size]).toEqual([2, [2, 2, 2]]);
});

test("a count c is a train of c spikes from the first tick on", async () => {
  const counts = await unpacked(await pack());
  const ticks = [0, 1, 2, 3].map((tick) => [...tickMap(counts, 0, tick, 0)]);
  expect(ticks).toEqual([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]);
  const sums = [0, 1, 2, 3].map((tick) => [...tickMap(counts, 0, tick, null)].reduce((a, b) => a + b, 0));
  expect(sums.reduce((a, b) => a + b)).toBe(data.slice(0, 8).reduce((a, b) => a + b));
  expect([...tickMap(counts, 1, 3, null)]).toEqual([1, 1, 1, 1]);
  expect(countAt(counts, 1, 3)).toBe(4);
});

test("vectors and tokens are maps, and neurons of a raster are evenly spaced", () => {
  expect([asMap([10]), asMap([3, 8]), asMap([3, 4, 5])]).toEqual([[10, 1, 1], [3, 8, 1], [3, 4, 5]]);
  expect([chosen(3, 5), chosen(10, 5)]).toEqual([[0, 1, 2], [0, 2, 4, 6, 8]]);
});
