/** Where boxes and edges go: every open block is laid out by dagre on its own, from the inside out. */
import { Graph, layout as runDagre } from "@dagrejs/dagre";
import { type Block, type Item, allBlocks, blockTree, chains, itemsOf } from "./blocks";
import { inColumns } from "./columns";
import type { GraphNode } from "./document";

export interface Box {
  /** `b:` and the path of a block, or `n:` and the index of a node. */
  id: string;
  x: number;
  y: number;
  width: number;
  height: number;
  /** How many blocks are open around it. */
  depth: number;
  open: boolean;
}

/** A piece of an edge: from a box or the border of an open block to another. */
export interface Piece {
  /** Index of the node whose value goes along it. */
  value: number;
  /** x, y, x, y, ... */
  points: number[];
}

export interface Scene {
  width: number;
  height: number;
  boxes: Box[];
  pieces: Piece[];
}

export const NODE = { width: 176, height: 34 };
export const BLOCK = { width: 216, height: 52 };
const PAD = 12;
const HEAD = 22;
/** dagre takes more than linear time: what is larger is laid out in rows. */
const MOST = 1200;

interface Inner {
  /** Size with padding and head. */
  width: number;
  height: number;
  boxes: Box[];
  pieces: Piece[];
  /** Value -> x of where it crosses the upper border, or the lower one. */
  ins: Map<number, number>;
  outs: Map<number, number>;
}

/** Edges within one open block, between what it shows. */
interface Level {
  /** `value|from|to`, ids of items. */
  edges: Map<string, { value: number; from: string; to: string }>;
  ins: Map<string, { value: number; to: string }>;
  outs: Map<string, { value: number; from: string }>;
}

export class Layouter {
  readonly root: Block;
  private readonly around: Map<number, Block[]>;
  private readonly blocks: Block[];
  private readonly known = new Map<string, Inner>();
  private readonly arrangements = new Map<string, Arrangement>();

  constructor(private readonly nodes: readonly GraphNode[]) {
    this.root = blockTree(nodes);
    this.around = chains(this.root);
    this.blocks = allBlocks(this.root);
  }

  /** The whole graph with these blocks open; what was laid out before is not laid out again. */
  scene(open: ReadonlySet<string>): Scene {
    const levels = this.levels(open);
    const made = this.block(this.root, open, levels);
    return { width: made.width, height: made.height, boxes: made.boxes, pieces: made.pieces };
  }

  private levels(open: ReadonlySet<string>): Map<string, Level> {
    const levels = new Map<string, Level>();
    const level = (path: string) => {
      const found = levels.get(path) ?? { edges: new Map(), ins: new Map(), outs: new Map() };
      levels.set(path, found);
      return found;
    };
    this.nodes.forEach((node, to) => {
      for (const from of new Set(node.inputs ?? [])) this.addEdge(from, to, open, level);
    });
    return levels;
  }

  /** Paths of the open blocks around a node, and the ids of what each shows of it. */
  private shown(node: number, open: ReadonlySet<string>): { paths: string[]; ids: string[] } {
    const paths = [""];
    const ids: string[] = [];
    for (const block of this.around.get(node) ?? []) {
      ids.push(`b:${block.path}`);
      if (!open.has(block.path)) return { paths, ids };
      paths.push(block.path);
    }
    ids.push(`n:${node}`);
    return { paths, ids };
  }

  private addEdge(value: number, to: number, open: ReadonlySet<string>, level: (path: string) => Level): void {
    const a = this.shown(value, open);
    const b = this.shown(to, open);
    let same = 0;
    while (a.ids[same] === b.ids[same] && same < a.ids.length) same += 1;
    const from = a.ids[same];
    const into = b.ids[same];
    if (from === undefined || into === undefined) return; // within a box
    level(a.paths[same] ?? "").edges.set(`${value}|${from}|${into}`, { value, from, to: into });
    for (let i = same + 1; i < a.ids.length; i += 1) {
      const id = a.ids[i] ?? "";
      level(a.paths[i] ?? "").outs.set(`${value}|${id}`, { value, from: id });
    }
    for (let i = same + 1; i < b.ids.length; i += 1) {
      const id = b.ids[i] ?? "";
      level(b.paths[i] ?? "").ins.set(`${value}|${id}`, { value, to: id });
    }
  }

  private block(block: Block, open: ReadonlySet<string>, levels: Map<string, Level>): Inner {
    const level = levels.get(block.path) ?? { edges: new Map(), ins: new Map(), outs: new Map() };
    const inner = this.blocks.filter((b) => open.has(b.path) && isWithin(b, block)).map((b) => b.path);
    const key = `${block.path}\n${inner.join("\n")}`;
    const known = this.known.get(key);
    if (known) return known;
    const items = itemsOf(block);
    const insides = new Map<string, Inner>();
    for (const { block: child } of items) {
      if (child && open.has(child.path)) insides.set(`b:${child.path}`, this.block(child, open, levels));
    }
    const made = arranged(items, level, insides, block.parent === null, this.arrangements);
    this.known.set(key, made);
    return made;
  }
}

function isWithin(block: Block, outer: Block): boolean {
  for (let at: Block | null = block.parent; at; at = at.parent) if (at === outer || at.path === outer.path) return true;
  return false;
}

function idOf(item: Item): string {
  return item.block ? `b:${item.block.path}` : `n:${item.node}`;
}

export interface Placed {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** What a block shows, from (0, 0); routes that come in or go out have no box at that end. */
export interface Arrangement {
  places: Map<string, Placed>;
  routes: { value: number; from: string; to: string; points: number[] }[];
  ins: Map<number, number>;
  outs: Map<number, number>;
  width: number;
  height: number;
}

function arranged(items: Item[], level: Level, insides: Map<string, Inner>, isRoot: boolean, known: Map<string, Arrangement>): Inner {
  const sizes = new Map(items.map((item) => [idOf(item), insides.get(idOf(item)) ?? (item.block ? BLOCK : NODE)]));
  const found = items.length > MOST ? inRows(sizes) : alike(sizes, level, known);
  // Where values come in, their way to the first rank is room enough below the head.
  const [left, top] = [PAD, isRoot ? PAD : level.ins.size ? HEAD - 6 : HEAD + 4];
  const bottom = !isRoot && level.outs.size ? 0 : PAD;
  const boxes: Box[] = [];
  const pieces: Piece[] = [];
  for (const [id, place] of found.places) {
    const inside = insides.get(id);
    const [x, y] = [place.x + left, place.y + top];
    boxes.push({ id, x, y, width: place.width, height: place.height, depth: 0, open: inside !== undefined });
    if (!inside) continue;
    boxes.push(...inside.boxes.map((box) => ({ ...box, x: box.x + x, y: box.y + y, depth: box.depth + 1 })));
    pieces.push(...inside.pieces.map(({ value, points }) => ({ value, points: moved(points, x, y) })));
  }
  for (const { value, from, to, points } of found.routes) {
    pieces.push({ value, points: joined(points, { left, top, bottom }, value, insides, found, from, to, isRoot) });
  }
  return {
    width: found.width + 2 * PAD,
    height: found.height + top + bottom,
    boxes,
    pieces,
    ins: new Map([...found.ins].map(([value, x]) => [value, x + left])),
    outs: new Map([...found.outs].map(([value, x]) => [value, x + left])),
  };
}

function moved(points: number[], x: number, y: number): number[] {
  return points.map((at, i) => at + (i % 2 ? y : x));
}

/** A route whose ends meet what goes on inside of open blocks, and reach the border of this one. */
function joined(
  points: number[], { left, top, bottom }: { left: number; top: number; bottom: number }, value: number,
  insides: ReadonlyMap<string, Inner>, found: Arrangement, from: string, to: string, isRoot: boolean,
): number[] {
  const route = moved(points, left, top);
  const [before, after] = [insides.get(from), insides.get(to)];
  const start = found.places.get(from);
  const end = found.places.get(to);
  if (before && start) route.splice(0, 2, ...outOf(placed(start, left, top), before.outs.get(value) ?? 0, route[1] ?? 0));
  if (after && end) route.splice(-2, 2, ...into(placed(end, left, top), after.ins.get(value) ?? 0, route.at(-1) ?? 0));
  if (!start && !isRoot) route.unshift(route[0] ?? 0, 0);
  if (!end && !isRoot) route.push(route.at(-2) ?? 0, found.height + top + bottom);
  return route;
}

function placed(place: Placed, left: number, top: number): Placed {
  return { ...place, x: place.x + left, y: place.y + top };
}

/** Values come out of an open block below; from there around it, if the route goes up. */
function outOf({ x, y, width, height }: Placed, port: number, starts: number): number[] {
  const [bottom, side] = [y + height, x + width + 7];
  return starts > y + height / 2 ? [x + port, bottom] : [x + port, bottom, x + port, bottom + 7, side, bottom + 7, side, y];
}

/** They come in from above; around the block, if the route comes from below. */
function into({ x, y, width, height }: Placed, port: number, ends: number): number[] {
  const side = x + width + 7;
  return ends < y + height / 2 ? [x + port, y] : [side, y + height, side, y - 7, x + port, y - 7, x + port, y];
}

/** As `byDagre`, which is not asked again about a block that is like another one in all but names. */
function alike(sizes: Map<string, { width: number; height: number }>, level: Level, known: Map<string, Arrangement>): Arrangement {
  const ids = new Map([...sizes.keys()].map((id, i) => [id, String(i)]));
  const values: number[] = [];
  const number = (value: number) => {
    if (!values.includes(value)) values.push(value);
    return values.indexOf(value);
  };
  const local = <E extends { value: number; from?: string; to?: string }>(edges: Map<string, E>) =>
    new Map([...edges.values()].map((edge, i) => [String(i), {
      ...edge, value: number(edge.value), ...(edge.from === undefined ? {} : { from: ids.get(edge.from) ?? "" }), ...(edge.to === undefined ? {} : { to: ids.get(edge.to) ?? "" }),
    }]));
  const plain: Level = { edges: local(level.edges), ins: local(level.ins), outs: local(level.outs) };
  const measures = [...sizes.values()].map(({ width, height }) => ({ width, height }));
  const key = JSON.stringify([measures, [...plain.edges.values()], [...plain.ins.values()], [...plain.outs.values()]]);
  const made = known.get(key) ?? inColumns(byDagre(new Map(measures.map((size, i) => [String(i), size])), plain));
  known.set(key, made);
  const names = [...sizes.keys()];
  const named = (id: string) => (id === "" ? "" : (names[Number(id)] ?? ""));
  const valued = (ports: Map<number, number>) => new Map([...ports].map(([value, x]) => [values[value] ?? value, x]));
  return {
    ...made,
    places: new Map([...made.places].map(([id, place]) => [named(id), place])),
    routes: made.routes.map((route) => ({ value: values[route.value] ?? route.value, from: named(route.from), to: named(route.to), points: route.points })),
    ins: valued(made.ins),
    outs: valued(made.outs),
  };
}

/** Values that come in are nodes of no height in the first rank, values that go out in the last one. */
function byDagre(sizes: Map<string, { width: number; height: number }>, level: Level): Arrangement {
  const graph = new Graph({ multigraph: true });
  graph.setGraph({ rankdir: "TB", nodesep: 18, ranksep: 26, edgesep: 10, ranker: "network-simplex" });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const [id, { width, height }] of sizes) graph.setNode(id, { width, height });
  for (const [key, { from, to }] of level.edges) graph.setEdge(from, to, {}, key);
  const ports = addPorts(graph, level);
  runDagre(graph);
  return measured(graph, sizes, level, ports);
}

interface Ports {
  ins: Map<number, string>;
  outs: Map<number, string>;
}

function addPorts(graph: Graph, level: Level): Ports {
  const ports: Ports = { ins: new Map(), outs: new Map() };
  const add = (which: "ins" | "outs", value: number, inner: string, key: string) => {
    const id = `${which}:${value}`;
    const hub = `${which}:all`;
    if (!ports[which].has(value)) {
      ports[which].set(value, id);
      graph.setNode(id, { width: 10, height: 0 });
      if (!graph.hasNode(hub)) graph.setNode(hub, { width: 1, height: 0 });
    }
    const ends: [string, string] = which === "ins" ? [id, inner] : [inner, id];
    graph.setEdge(...ends, {}, key);
    // The hub holds the port at the border, whatever pulls at it from within.
    const hold: [string, string] = which === "ins" ? [hub, id] : [id, hub];
    graph.setEdge(...hold, { weight: 2 + (graph.nodeEdges(id)?.length ?? 0) });
  };
  for (const [key, { value, to }] of level.ins) add("ins", value, to, `in|${key}`);
  for (const [key, { value, from }] of level.outs) add("outs", value, from, `out|${key}`);
  holdWithin(graph, level);
  return ports;
}

/** No box is above where values come in, or below where they go out, as those without edges might be. */
function holdWithin(graph: Graph, level: Level): void {
  const places = new Map(graph.nodes().map((id, place) => [id, place]));
  const forward = [...level.edges.values()].filter(({ from, to }) => (places.get(from) ?? 0) < (places.get(to) ?? 0));
  const starts = new Set([...forward, ...level.outs.values()].map(({ from }) => from));
  const ends = new Set([...forward, ...level.ins.values()].map(({ to }) => to));
  for (const id of places.keys()) {
    if (id.includes(":")) continue; // a port
    if (graph.hasNode("ins:all") && !ends.has(id)) graph.setEdge("ins:all", id, { weight: 0, minlen: 2 }, "hold");
    if (graph.hasNode("outs:all") && !starts.has(id)) graph.setEdge(id, "outs:all", { weight: 0, minlen: 2 }, "hold");
  }
}

function measured(graph: Graph, sizes: Map<string, Placed | { width: number; height: number }>, level: Level, ports: Ports): Arrangement {
  const centre = (id: string) => graph.node(id) as unknown as { x: number; y: number };
  const xs: number[] = [];
  const ys: number[] = [];
  const reach = (id: string, { width, height }: { width: number; height: number }) => {
    const { x, y } = centre(id);
    xs.push(x - width / 2, x + width / 2);
    ys.push(y - height / 2, y + height / 2);
  };
  for (const [id, size] of sizes) reach(id, size);
  for (const id of [...ports.ins.values(), ...ports.outs.values()]) reach(id, { width: 10, height: 0 });
  const ranks = new Map<number, number>(); // their middle -> half of their height
  for (const [id, { height }] of sizes) {
    const middle = Math.round(centre(id).y);
    ranks.set(middle, Math.max(ranks.get(middle) ?? 0, height / 2));
  }
  const named = (key: string, from: string, to: string) => {
    const edge = graph.edge(from, to, key) as unknown as { points?: Point[] };
    const points = pastRanks(edge.points ?? [], ranks);
    const end = (id: string) => ({ ...centre(id), ...(sizes.get(id) ?? { width: 0, height: 0 }) });
    return [...leaving(end(from), points[1] ?? end(to), ranks), ...points.slice(1, -1), ...leaving(end(to), points.at(-2) ?? end(from), ranks).reverse()];
  };
  const drawn = [
    ...[...level.edges].map(([key, e]) => ({ ...e, at: named(key, e.from, e.to) })),
    ...[...level.ins].map(([key, e]) => ({ ...e, from: "", at: named(`in|${key}`, `ins:${e.value}`, e.to) })),
    ...[...level.outs].map(([key, e]) => ({ ...e, to: "", at: named(`out|${key}`, e.from, `outs:${e.value}`) })),
  ];
  for (const { at } of drawn) for (const { x } of at) xs.push(x);
  const [left, top] = [least(xs), least(ys)];
  const places = new Map([...sizes].map(([id, { width, height }]) => {
    const { x, y } = centre(id);
    return [id, { x: x - width / 2 - left, y: y - height / 2 - top, width, height }];
  }));
  const port = (ids: Map<number, string>) => new Map([...ids].map(([value, id]) => [value, centre(id).x - left]));
  return {
    places,
    routes: drawn.map(({ value, from, to, at }) => ({ value, from, to, points: at.flatMap(({ x, y }) => [x - left, y - top]) })),
    ins: port(ports.ins),
    outs: port(ports.outs),
    width: -least(xs.map((x) => -x)) - left,
    height: -least(ys.map((y) => -y)) - top,
  };
}

interface Point {
  x: number;
  y: number;
}

/** Where a route to a point leaves a box (or reaches it): through the side along the ranks, past its rank. */
function leaving(box: Point & { width: number; height: number }, to: Point, ranks: ReadonlyMap<number, number>): Point[] {
  const down = to.y > box.y ? 1 : -1;
  const room = Math.max(box.width / 2 - 12, 0);
  const x = Math.min(Math.max(to.x, box.x - room), box.x + room);
  const half = ranks.get(Math.round(box.y)) ?? 0;
  const start = { x, y: box.y + (down * box.height) / 2 };
  return half > box.height / 2 ? [start, { x, y: box.y + down * half }] : [start];
}

/** A route that goes straight past the boxes of each rank: dagre bends it in the middle of them. */
function pastRanks(points: Point[], ranks: ReadonlyMap<number, number>): Point[] {
  return points.flatMap((point, i) => {
    const half = ranks.get(Math.round(point.y));
    const before = points[i - 1];
    if (half === undefined || !before || i === points.length - 1) return [point];
    const first = before.y <= point.y ? -half : half;
    return [{ x: point.x, y: point.y + first }, { x: point.x, y: point.y - first }];
  });
}

function least(numbers: number[]): number {
  return numbers.length ? numbers.reduce((a, b) => Math.min(a, b)) : 0;
}

/** Of a block with too many items: in the order of the graph, without edges. */
function inRows(sizes: Map<string, { width: number; height: number }>): Arrangement {
  const columns = Math.ceil(Math.sqrt(sizes.size / 4));
  const places = new Map<string, Placed>();
  let [x, y, high, width, i] = [0, 0, 0, 0, 0];
  for (const [id, size] of sizes) {
    places.set(id, { x, y, ...size, width: size.width, height: size.height });
    x += size.width + 18;
    high = Math.max(high, size.height);
    width = Math.max(width, x);
    i += 1;
    if (i % columns === 0) [x, y, high] = [0, y + high + 18, 0];
  }
  return { places, routes: [], ins: new Map(), outs: new Map(), width, height: y + high };
}
