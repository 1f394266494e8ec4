import { expect, test } from "vitest";
import { allBlocks, blockTree, chains, firstOpen, itemsOf, nodesIn } from "../src/blocks";
import { graph } from "./example";

test("a block of one node is that node, a block of one block is that block", () => {
  const root = blockTree(graph(["", "a.b.c", "a.b.c", "a.b.d"]));
  expect(root.blocks.map(({ path, label }) => [path, label])).toEqual([["a.b", "a.b"]]);
  expect(root.blocks[0]?.blocks.map(({ path }) => path)).toEqual(["a.b.c"]);
  expect(root.blocks[0]?.nodes).toEqual([3]);
});

test("every node is in the tree once, in the order of the graph", () => {
  const modules = ["", "a.x", "a.y", "b", "a.x", "b.z", "b.z", "", "c.d.e.f", "c.d.e.f"];
  const root = blockTree(graph(modules));
  expect(nodesIn(root)).toEqual(modules.map((_, index) => index));
  expect([...chains(root).keys()].sort((a, b) => a - b)).toEqual(nodesIn(root));
  const shown = itemsOf(root).map((item) => item.block?.path ?? item.node);
  expect(shown).toEqual([0, "a", "b", 7, "c.d.e.f"]);
});

test("parents of shortened blocks are blocks of the tree", () => {
  const root = blockTree(graph(["a.b.c.x", "a.b.c.x", "a.b.c.y", "a.b.c.y"]));
  const known = new Set(allBlocks(root));
  for (const block of known) if (block.parent) expect(known.has(block.parent)).toBe(true);
});

test("blocks are opened level by level, as long as few enough boxes are seen", () => {
  const root = blockTree(graph(["a.x", "a.x", "a.y", "a.y", "b.x", "b.x", "b.y"]));
  expect([...firstOpen(root, 2)]).toEqual([]);
  expect([...firstOpen(root, 4)]).toEqual(["a", "b"]);
  expect([...firstOpen(root, 50)]).toEqual(["a", "b", "a.x", "a.y", "b.x"]);
});
