/** Drawn networks: whatever blocks are open, boxes keep apart and edges go past boxes. */
import { expect, test } from "vitest";
import { allBlocks } from "../src/blocks";
import type { GraphNode } from "../src/document";
import { type Box, Layouter, type Scene } from "../src/layout";

/** Numbers from 0 to 1 that are the same in every run. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Nodes that read one to three before them, mostly the last, in modules three deep that also return. */
function drawn(seed: number): GraphNode[] {
  const draw = random(seed);
  const count = 10 + Math.floor(draw() * 120);
  let path = [0, 0, 0];
  return Array.from({ length: count }, (_, index): GraphNode => {
    if (draw() < 0.5) path = path.map((part, depth) => (draw() < 0.35 ? Math.max(0, part + (draw() < 0.1 ? -1 : 1)) : part) % (depth ? 4 : 6));
    const depth = 1 + Math.floor(draw() * 3);
    const reads = Array.from({ length: 1 + Math.floor(draw() * 3) }, () => Math.max(0, index - 1 - Math.floor(draw() ** 4 * 30)));
    return { name: `v${index}`, op: "Op", module: path.slice(0, depth).map((part) => `m${part}`).join("."), inputs: index ? [...new Set(reads)] : [] };
  });
}

const overlap = (a: Box, b: Box) => a.x < b.x + b.width - 0.01 && b.x < a.x + a.width - 0.01 && a.y < b.y + b.height - 0.01 && b.y < a.y + a.height - 0.01;

function overlaps(scene: Scene): string[] {
  return scene.boxes.flatMap((a, i) => scene.boxes.slice(i + 1).filter((b) => a.depth === b.depth && overlap(a, b)).map((b) => `${a.id} ${b.id}`));
}

function outside(scene: Scene): number {
  const beyond = scene.pieces.flatMap(({ points }) => points.filter((at, i) => !(at >= -0.01 && at <= (i % 2 ? scene.height : scene.width) + 0.01)));
  const boxes = scene.boxes.filter((box) => box.x < 0 || box.y < 0 || box.x + box.width > scene.width + 0.01 || box.y + box.height > scene.height + 0.01);
  return beyond.length + boxes.length;
}

/** Edges that go through the inside of a box. */
function through(scene: Scene): string[] {
  const leaves = scene.boxes.filter((box) => !box.open);
  const hit = (x: number, y: number) => leaves.find((box) => x > box.x + 3 && x < box.x + box.width - 3 && y > box.y + 3 && y < box.y + box.height - 3);
  return scene.pieces.flatMap(({ value, points }) => {
    for (let i = 2; i < points.length; i += 2) {
      const [x0 = 0, y0 = 0, x1 = 0, y1 = 0] = points.slice(i - 2, i + 2);
      const box = [0.25, 0.5, 0.75].map((part) => hit(x0 + (x1 - x0) * part, y0 + (y1 - y0) * part)).find(Boolean);
      if (box) return [`${value} through ${box.id}: ${points.map(Math.round).join(" ")}; ${[box.x, box.y, box.width, box.height].map(Math.round).join(" ")}`];
    }
    return [];
  });
}

test.each(Array.from({ length: 24 }, (_, seed) => seed))("network %i", (seed) => {
  const nodes = drawn(seed);
  const layouter = new Layouter(nodes);
  const paths = allBlocks(layouter.root).map(({ path }) => path).filter(Boolean);
  const draw = random(seed + 1000);
  for (const open of [[], paths, paths.filter(() => draw() < 0.5)]) {
    const scene = layouter.scene(new Set(open));
    expect(overlaps(scene)).toEqual([]);
    expect(outside(scene)).toBe(0);
    expect(through(scene)).toEqual([]);
  }
});
