/** Search over blocks, nodes and operators. */
import type { StageGraph } from "./network";

export interface Hit {
  id: string;
  text: string;
  /** What it is, for people. */
  note: string;
  /** What it is found by as well: its module. */
  also?: string;
}

/** The best hits first: whole names, then ends of paths, then parts, then letters in order. */
export function search(graph: StageGraph, query: string, most = 40): Hit[] {
  const wanted = query.trim().toLowerCase();
  if (!wanted) return [];
  return candidates(graph)
    .map((hit) => ({ hit, score: Math.max(score(hit.text.toLowerCase(), wanted), score(hit.note.toLowerCase(), wanted) - 2, score(hit.also?.toLowerCase() ?? "", wanted) - 1) }))
    .filter(({ score: found }) => found > 0)
    .sort((a, b) => b.score - a.score || a.hit.text.length - b.hit.text.length)
    .slice(0, most)
    .map(({ hit }) => hit);
}

function candidates(graph: StageGraph): Hit[] {
  const blocks = [...graph.blocks.values()].filter((block) => block.path);
  const nodes = graph.stage.nodes.map((node, index) => ({ id: `n:${index}`, text: node.name, note: node.op, also: node.module ?? "" }));
  return [...blocks.map((block) => ({ id: `b:${block.path}`, text: block.path, note: "block" })), ...nodes];
}

function score(text: string, wanted: string): number {
  if (text === wanted) return 8;
  if (text.endsWith(`.${wanted}`)) return 7;
  if (text.startsWith(wanted)) return 6;
  if (text.includes(`.${wanted}`)) return 5;
  if (text.includes(wanted)) return 4;
  return wanted.length > 2 && hasInOrder(text, wanted) ? 1 : 0;
}

function hasInOrder(text: string, wanted: string): boolean {
  let at = -1;
  for (const letter of wanted) {
    at = text.indexOf(letter, at + 1);
    if (at < 0) return false;
  }
  return true;
}
