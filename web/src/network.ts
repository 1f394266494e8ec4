/** What the page asks of the document: nodes by name and module, what belongs to which. */
import { type Block, allBlocks, blockTree, chains, nodesIn } from "./blocks";
import type { Fact, GraphNode, NetworkDocument, Population, Projection, Stage } from "./document";

/** One stage, with the answers that take a walk over its graph. */
export class StageGraph {
  readonly root: Block;
  readonly blocks: Map<string, Block>;
  readonly chains: Map<number, Block[]>;
  readonly readers: number[][];
  readonly byName: Map<string, number>;
  private readonly byFact = new Map<string, number[]>();

  constructor(readonly stage: Stage) {
    this.root = blockTree(stage.nodes);
    this.blocks = new Map(allBlocks(this.root).map((block) => [block.path, block]));
    this.chains = chains(this.root);
    this.byName = new Map(stage.nodes.map((node, index) => [node.name, index]));
    this.readers = stage.nodes.map(() => []);
    stage.nodes.forEach((node, index) => {
      for (const input of new Set(node.inputs ?? [])) this.readers[input]?.push(index);
    });
    stage.nodes.forEach((node, index) => {
      if (node.fact) this.byFact.set(node.fact, [...(this.byFact.get(node.fact) ?? []), index]);
    });
  }

  node(index: number): GraphNode {
    const node = this.stage.nodes[index];
    if (!node) throw new RangeError(`no node ${index}`);
    return node;
  }

  /** Nodes that compute what a node of the Program is. */
  nodesOf(fact: string): number[] {
    return this.byFact.get(fact) ?? [];
  }

  /** The innermost block around a node. */
  blockOf(index: number): Block {
    return this.chains.get(index)?.at(-1) ?? this.root;
  }

  /** The block or node of a module path, or the node of a name: `b:path`, `n:index`. */
  find(path: string): string | null {
    if (path !== "" && this.blocks.has(path)) return `b:${path}`;
    const named = this.byName.get(path);
    if (named !== undefined) return `n:${named}`;
    const inside = this.stage.nodes.findIndex((node) => node.module === path);
    if (inside >= 0) return `n:${inside}`;
    const within = [...this.blocks.values()].find((block) => block.path.startsWith(`${path}.`) && path !== "");
    return within ? `b:${within.path}` : null;
  }

  /** Nodes of a box. */
  members(id: string): number[] {
    if (id.startsWith("n:")) return [Number(id.slice(2))];
    const block = this.blocks.get(id.slice(2));
    return block ? nodesIn(block) : [];
  }
}

export type Change = "new" | "changed" | "same";

/** The whole network: its stages, and the facts about its Program by name. */
export class Network {
  readonly facts: Map<string, Fact>;
  readonly stages: Map<string, StageGraph>;
  readonly populations: Fact[];
  readonly activity: Map<string, Population>;
  /** The most spikes per neuron of a population, and the most changed activations; above 0. */
  readonly busiest: number;
  readonly mostChanged: number;

  constructor(readonly document: NetworkDocument) {
    this.facts = new Map(document.program.map((fact) => [fact.name, fact]));
    this.stages = new Map(document.stages.map((stage) => [stage.name, new StageGraph(stage)]));
    this.populations = document.program.filter((fact) => fact.type === "neuron");
    const known = document.profile?.populations ?? document.reference?.populations ?? [];
    this.activity = new Map(known.map((population) => [population.name, population]));
    this.busiest = Math.max(...known.map((population) => population.mean_count), 0) || 1;
    this.mostChanged = Math.max(...this.populations.map((fact) => fact.changed ?? 0), 0) || 1;
  }

  stage(name: string): StageGraph {
    const found = this.stages.get(name) ?? [...this.stages.values()].at(-1);
    if (!found) throw new RangeError("the file holds no graph");
    return found;
  }

  /** The stage before one, if the file holds it. */
  before(name: string): StageGraph | undefined {
    const names = [...this.stages.keys()];
    return this.stages.get(names[names.indexOf(name) - 1] ?? "");
  }

  /** What became of each node of a stage since the stage before, and which of that are gone. */
  changes(name: string): { nodes: Change[]; gone: GraphNode[] } | null {
    const before = this.before(name);
    if (!before) return null;
    const { stage: now, byName } = this.stage(name);
    const nodes = now.nodes.map((node): Change => {
      const old = before.byName.get(node.name);
      if (old === undefined) return "new";
      return signature(before.node(old)) === signature(node) ? "same" : "changed";
    });
    return { nodes, gone: before.stage.nodes.filter((node) => !byName.has(node.name)) };
  }

  /** Facts about a box, each once. */
  factsOf(graph: StageGraph, id: string): Fact[] {
    const members = graph.members(id);
    const found = members.map((index) => this.facts.get(graph.node(index).fact ?? ""));
    const modules = new Set(members.map((index) => graph.node(index).module).filter(Boolean));
    const besides = this.document.program.filter((fact) => modules.has(fact.module) && id.startsWith("b:"));
    return [...new Set([...found, ...besides])].filter((fact) => fact !== undefined);
  }

  /** Weights that a node of a graph multiplies with: synapses of the Program. */
  projectionsOf(graph: StageGraph, index: number): { into: Fact; projection: Projection }[] {
    const into = this.follow(index, (at) => graph.readers[at] ?? [], graph, "accumulator");
    const from = this.follow(index, (at) => graph.node(at).inputs ?? [], graph, "");
    const projections = into?.projections ?? [];
    const own = projections.filter((projection) => projection.source === from?.name);
    return into ? (own.length ? own : projections).map((projection) => ({ into, projection })) : [];
  }

  /** The nearest node of the Program along a graph, of a type if one is given. */
  private follow(start: number, next: (at: number) => number[], graph: StageGraph, type: string): Fact | undefined {
    let level = [start];
    for (let steps = 0; level.length && steps < 8; steps += 1) {
      level = level.flatMap(next);
      for (const at of level) {
        const fact = this.facts.get(graph.node(at).fact ?? "");
        if (fact && (!type || fact.type === type)) return fact;
      }
    }
    return undefined;
  }
}

function signature(node: GraphNode): string {
  return JSON.stringify([node.op, node.type, node.attributes, node.constants, node.inputs?.length]);
}
