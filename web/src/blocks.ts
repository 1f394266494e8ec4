/** Blocks: the nodes of a graph by the module paths they come from, as a tree. */
import type { GraphNode } from "./document";

export interface Block {
  /** Module path; empty for the whole graph. */
  path: string;
  /** What the path adds to that of the block around it. */
  label: string;
  parent: Block | null;
  blocks: Block[];
  /** Indices of nodes that are in no block of this one. */
  nodes: number[];
  /** Nodes of it and of all blocks in it. */
  size: number;
  /** Its first node: blocks and nodes are listed by it. */
  first: number;
}

/** What a block shows when it is open. */
export type Item = { block: Block; node?: undefined } | { node: number; block?: undefined };

function newBlock(path: string, label: string, parent: Block | null, first: number): Block {
  return { path, label, parent, blocks: [], nodes: [], size: 0, first };
}

/**
 * The tree of a graph's blocks. A block that holds one node alone is that node, and a block that holds
 * one block alone is that block, under a longer label.
 */
export function blockTree(nodes: readonly GraphNode[]): Block {
  const root = newBlock("", "", null, 0);
  const byPath = new Map<string, Block>([["", root]]);
  nodes.forEach((node, index) => {
    const block = blockAt(node.module ?? "", index, byPath);
    block.nodes.push(index);
    for (let at: Block | null = block; at; at = at.parent) at.size += 1;
  });
  return shortened(root);
}

function blockAt(path: string, first: number, byPath: Map<string, Block>): Block {
  const known = byPath.get(path);
  if (known) return known;
  const cut = path.lastIndexOf(".");
  const parent = blockAt(cut < 0 ? "" : path.slice(0, cut), first, byPath);
  const block = newBlock(path, path.slice(cut + 1), parent, first);
  parent.blocks.push(block);
  byPath.set(path, block);
  return block;
}

function shortened(block: Block): Block {
  const blocks = block.blocks.map((inner) => shortened(inner));
  block.nodes.push(...blocks.filter((inner) => inner.size === 1).flatMap((inner) => inner.nodes));
  block.nodes.sort((a, b) => a - b);
  block.blocks = blocks.filter((inner) => inner.size > 1);
  const only = block.blocks[0];
  if (!block.parent || !only || block.blocks.length > 1 || block.nodes.length) return block;
  only.label = `${block.label}.${only.label}`;
  only.parent = block.parent;
  return only;
}

/** What an open block shows, in the order of the graph. */
export function itemsOf(block: Block): Item[] {
  const items: Item[] = [...block.blocks.map((inner) => ({ block: inner })), ...block.nodes.map((node) => ({ node }))];
  return items.sort((a, b) => firstOf(a) - firstOf(b));
}

function firstOf(item: Item): number {
  return item.block ? item.block.first : item.node;
}

/** All blocks, each before those in it. */
export function allBlocks(root: Block): Block[] {
  return [root, ...root.blocks.flatMap(allBlocks)];
}

/** All nodes of a block and of the blocks in it, in the order of the graph. */
export function nodesIn(block: Block): number[] {
  return [...block.nodes, ...block.blocks.flatMap(nodesIn)].sort((a, b) => a - b);
}

/** For each node the blocks around it, outermost first; the whole graph is left out. */
export function chains(root: Block): Map<number, Block[]> {
  const found = new Map<number, Block[]>();
  const walk = (block: Block, around: Block[]) => {
    for (const node of block.nodes) found.set(node, around);
    for (const inner of block.blocks) walk(inner, [...around, inner]);
  };
  walk(root, []);
  return found;
}

/** Blocks to open first: outermost ones, as long as no more than `most` boxes are seen. */
export function firstOpen(root: Block, most: number): Set<string> {
  const open = new Set<string>();
  let boxes = root.blocks.length + root.nodes.length;
  let level = [...root.blocks];
  while (level.length) {
    const more = level.reduce((sum, block) => sum + block.blocks.length + block.nodes.length - 1, 0);
    if (boxes + more > most) break;
    boxes += more;
    for (const block of level) open.add(block.path);
    level = level.flatMap((block) => block.blocks);
  }
  return open;
}
