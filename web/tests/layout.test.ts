import { expect, test } from "vitest";
import type { GraphNode } from "../src/document";
import { type Box, Layouter } from "../src/layout";

/** A residual block, twice: a branch of two modules and the shortcut around it. */
function residual(): GraphNode[] {
  const nodes: GraphNode[] = [{ name: "x", op: "input" }];
  for (const block of ["a", "b"]) {
    const from = nodes.length - 1;
    nodes.push({ name: `${block}1`, op: "Conv", module: `${block}.conv`, inputs: [from] });
    nodes.push({ name: `${block}2`, op: "Sum", module: `${block}.conv`, inputs: [from + 1] });
    nodes.push({ name: `${block}3`, op: "Fire", module: `${block}.fire`, inputs: [from + 2] });
    nodes.push({ name: `${block}4`, op: "Add", module: block, inputs: [from, from + 3] });
  }
  return nodes;
}

const isInside = (inner: Box, outer: Box) =>
  inner.x >= outer.x && inner.y >= outer.y && inner.x + inner.width <= outer.x + outer.width && inner.y + inner.height <= outer.y + outer.height;
const overlap = (a: Box, b: Box) => a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;

test("closed blocks are boxes in a row of ranks, joined by one edge each", () => {
  const scene = new Layouter(residual()).scene(new Set());
  expect(scene.boxes.map(({ id }) => id)).toEqual(["n:0", "b:a", "b:b"]);
  expect(scene.pieces.map(({ value }) => value)).toEqual([0, 4]);
  const ys = scene.boxes.map(({ y }) => y);
  expect(ys).toEqual([...ys].sort((a, b) => a - b));
});

test("boxes of one depth never overlap, and open blocks hold what is in them", () => {
  const scene = new Layouter(residual()).scene(new Set(["a", "b", "a.conv"]));
  const byId = new Map(scene.boxes.map((box) => [box.id, box]));
  for (const one of scene.boxes) for (const two of scene.boxes) {
    if (one !== two && one.depth === two.depth) expect(overlap(one, two)).toBe(false);
  }
  const outer = byId.get("b:a");
  const inner = byId.get("b:a.conv");
  const node = byId.get("n:1");
  if (!outer || !inner || !node) throw new Error("missing");
  expect(isInside(inner, outer) && isInside(node, inner)).toBe(true);
  for (const box of scene.boxes) expect(box.x >= 0 && box.x + box.width <= scene.width && box.y + box.height <= scene.height).toBe(true);
});

test("edges of an open block start and end at its border, where those around it go on", () => {
  const scene = new Layouter(residual()).scene(new Set(["a", "b"]));
  const b = scene.boxes.find(({ id }) => id === "b:b");
  if (!b) throw new Error("missing");
  const crossing = scene.pieces.filter(({ value }) => value === 4);
  const ends = crossing.map(({ points }) => points.slice(-2)).filter(([, y]) => y === b.y);
  const starts = crossing.map(({ points }) => points.slice(0, 2)).filter(([, y]) => y === b.y);
  expect(ends).toHaveLength(1);
  expect(starts.length).toBe(2); // the branch and the shortcut
  for (const start of starts) expect(start).toEqual(ends[0]);
});

test("blocks that are alike in all but names are laid out once, and each has its own values", () => {
  const scene = new Layouter(residual()).scene(new Set(["a", "b"]));
  const of = (block: string) => scene.boxes.filter(({ id, depth }) => depth === 1 && (id.startsWith(`b:${block}.`) || id === (block === "a" ? "n:3" : "n:7") || id === (block === "a" ? "n:4" : "n:8")));
  const [a, b] = [of("a"), of("b")];
  expect(a).toHaveLength(3);
  const shift = (b[0]?.y ?? 0) - (a[0]?.y ?? 0);
  expect(b.map(({ x, y }) => [x, y - shift])).toEqual(a.map(({ x, y }) => [x, y]));
  expect(new Set(scene.pieces.map(({ value }) => value))).toEqual(new Set([0, 2, 3, 4, 6, 7]));
});

test("modules that call each other by turns are laid out as well", () => {
  const nodes: GraphNode[] = ["a", "b", "a", "b", "a"].map((module, index) => ({ name: `v${index}`, op: "Op", module, inputs: index ? [index - 1] : [] }));
  for (const open of [[], ["a"], ["a", "b"]]) expect(new Layouter(nodes).scene(new Set(open)).boxes.length).toBeGreaterThan(1);
});

test("a block with more than dagre is asked to lay out is a grid", () => {
  const nodes = Array.from({ length: 3000 }, (_, index): GraphNode => ({ name: `v${index}`, op: "Op", inputs: index ? [index - 1] : [] }));
  const scene = new Layouter(nodes).scene(new Set());
  expect(scene.boxes).toHaveLength(3000);
  expect(scene.boxes.slice(1, 40).every((box, i) => !overlap(box, scene.boxes[i] ?? box))).toBe(true);
});

test("a thousand nodes in small blocks are laid out within seconds", () => {
  const modules = Array.from({ length: 1000 }, (_, index) => `block${Math.floor(index / 100)}.part${Math.floor(index / 10) % 10}.leaf${Math.floor(index / 2) % 5}`);
  const nodes = modules.map((module, index): GraphNode => ({ name: `v${index}`, op: "Op", module, inputs: index ? [index - 1] : [] }));
  const layouter = new Layouter(nodes);
  const scene = layouter.scene(new Set(modules.flatMap((path) => path.split(".").map((_, i, parts) => parts.slice(0, i + 1).join(".")))));
  expect(scene.boxes.filter(({ id }) => id.startsWith("n:"))).toHaveLength(1000);
});
