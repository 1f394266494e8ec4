/** What is known of a box: where it comes from, its weights, levels, bounds, and what it did. */
import { countHistogram, heat, histogram, levelsPlot, rangeBar } from "./charts";
import type { Constant, Fact, GraphNode, Population, Projection } from "./document";
import { button, h, pairs, section } from "./dom";
import { integer, percent, plural, range, real, shape, short } from "./format";
import type { Network, StageGraph } from "./network";

export interface DetailsHooks {
  select: (id: string) => void;
  /** To another stage, at a node or module. */
  go: (stage: string, path: string) => void;
  maps: (population: string) => void;
  hasMaps: boolean;
}

/** The panel of a box. */
export function details(network: Network, graph: StageGraph, id: string, hooks: DetailsHooks): HTMLElement[] {
  return id.startsWith("n:") ? ofNode(network, graph, Number(id.slice(2)), hooks) : ofBlock(network, graph, id, hooks);
}

function ofNode(network: Network, graph: StageGraph, index: number, hooks: DetailsHooks): HTMLElement[] {
  const node = graph.node(index);
  const fact = network.facts.get(node.fact ?? "");
  return [
    h("h2", {}, node.name),
    pairs([
      ["operator", node.op],
      ["result", node.type ?? ""],
      ["torch module", node.module ?? ""],
      ["source", node.source ?? ""],
      ["class", node.class ?? ""],
      ["made by", node.pass ?? (node.op === "input" || node.op === "output" ? "" : "the import")],
      ["change", changeOf(network, graph, index)],
    ]),
    ...(fact ? ofFact(network, fact, hooks) : []),
    ...(node.kind === "layer" ? network.projectionsOf(graph, index).map(({ projection }) => ofProjection(projection)) : []),
    ofConstants(graph, node),
    ofAttributes(node),
    neighbours(graph, index, hooks),
    elsewhere(network, graph, node, hooks),
  ].filter((part) => part !== null);
}

function changeOf(network: Network, graph: StageGraph, index: number): string {
  const before = network.before(graph.stage.name)?.stage.name;
  const change = network.changes(graph.stage.name)?.nodes[index];
  const words = { new: `new, not in ${before}`, changed: `changed since ${before}`, same: `as in ${before}` };
  return before && change ? words[change] : "";
}

function ofBlock(network: Network, graph: StageGraph, id: string, hooks: DetailsHooks): HTMLElement[] {
  const facts = network.factsOf(graph, id);
  const members = graph.members(id).map((index) => graph.node(index));
  const populations = facts.filter((fact) => fact.type === "neuron");
  const potentials = facts.filter((fact) => fact.type === "accumulator");
  const sources = [...new Set(members.map((node) => node.source).filter((source) => source !== undefined))];
  const head = [
    h("h2", {}, id.slice(2)),
    pairs([
      ["torch module", id.slice(2)],
      ["source", sources.length > 3 ? `${sources.slice(0, 3).join(", ")} and ${sources.length - 3} more` : sources.join(", ")],
      ["nodes", integer(members.length)],
      ["populations", populations.length ? integer(populations.length) : ""],
      ["neurons", populations.length ? integer(populations.reduce((sum, fact) => sum + (fact.neurons ?? 0), 0)) : ""],
      ["weights", weightsOf(network, graph, id)],
    ]),
  ];
  if (populations.length + potentials.length <= 3) {
    const layers = graph.members(id).filter((index) => graph.node(index).kind === "layer");
    const shown = new Set(layers.flatMap((index) => network.projectionsOf(graph, index).map(({ projection }) => projection)));
    const own = new Set(potentials.flatMap((fact) => fact.projections ?? []));
    return [...head, ...[...populations, ...potentials].flatMap((fact) => ofFact(network, fact, hooks)), ...[...shown].filter((p) => !own.has(p)).map(ofProjection)];
  }
  return [...head, listOf(network, graph, populations, `${id.slice(2)}.`, hooks)];
}

function weightsOf(network: Network, graph: StageGraph, id: string): string {
  const layers = graph.members(id).filter((index) => graph.node(index).kind === "layer");
  const shown = new Set(layers.flatMap((index) => network.projectionsOf(graph, index).map(({ projection }) => projection)));
  const count = [...shown].reduce((sum, projection) => sum + projection.shape.reduce((a, b) => a * b, projection.shape.length ? 1 : 0), 0);
  return count ? integer(count) : "";
}

function listOf(network: Network, graph: StageGraph, populations: Fact[], within: string, hooks: DetailsHooks): HTMLElement {
  const rows = populations.map((fact) => {
    const activity = network.activity.get(fact.name);
    const target = graph.nodesOf(fact.name)[0];
    const told = fact.module.startsWith(within) ? fact.module.slice(within.length) : fact.module || fact.name;
    const name = button(told, () => hooks.select(`n:${target ?? 0}`), { class: "link", title: fact.module });
    return h("tr", {}, h("th", { scope: "row" }, target === undefined ? told : name), h("td", { class: "number" }, shape(fact.shape)),
      h("td", { class: "number" }, activity ? short(activity.mean_count) : percent(fact.changed)));
  });
  const last = network.activity.size ? "spikes/neuron" : "changed";
  const head = h("tr", {}, ...["population", "shape", last].map((text, i) => h("th", { scope: "col", class: i ? "number" : "" }, text)));
  return section("Populations", h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows)));
}

// -- nodes of the Program --------------------------------------------------------------------

function ofFact(network: Network, fact: Fact, hooks: DetailsHooks): HTMLElement[] {
  if (fact.type === "neuron") return ofNeuron(network, fact, hooks);
  if (fact.type === "accumulator") return [ofPotential(fact), ...(fact.projections ?? []).map(ofProjection)];
  const shown = Object.entries(fact).filter(([key]) => !["type", "name", "module", "shape"].includes(key));
  return [section(titled(fact.type), pairs([["shape", shape(fact.shape)], ...shown.map(([key, value]): [string, string] => [key, plainly(value)])]))];
}

function titled(type: string): string {
  return type.charAt(0).toUpperCase() + type.slice(1);
}

function plainly(value: unknown): string {
  if (Array.isArray(value)) return value.map(plainly).join(", ");
  return typeof value === "number" || typeof value === "string" ? (typeof value === "number" ? real(value) : value) : JSON.stringify(value);
}

function ofNeuron(network: Network, fact: Fact, hooks: DetailsHooks): HTMLElement[] {
  const verified = verdictOf(network, fact);
  const neuron = section("Population",
    pairs([
      ["shape", `${shape(fact.shape)}, ${plural(fact.neurons ?? 0, "neuron")}`],
      ["D", String(fact.D)],
      ["firing window", `${fact.window}`],
      ["memory", fact.carry === "none" ? "" : `reset: ${fact.carry}`],
      ["rounding", fact.rounding ?? ""],
      ["norm", fact.norm === undefined ? "" : real(fact.norm)],
      ["changed, end to end", fact.changed === null ? "" : percent(fact.changed)],
      ["by its own weights", fact.changed_teacher_forced === null ? "" : percent(fact.changed_teacher_forced)],
      ["saturated at D", fact.saturated === null ? "" : percent(fact.saturated)],
      ["ties met", fact.ties === null || fact.ties === undefined ? "" : integer(fact.ties)],
      ["verified", verified],
    ]));
  const levels = fact.levels
    ? section("Levels", h("p", { class: "quiet" }, levelsText(fact.levels.channels)), levelsPlot(fact.levels)) : null;
  return [neuron, levels, ofActivity(network, fact, hooks)].filter((part) => part !== null);
}

function levelsText(channels: number): string {
  return channels === 1 ? "One set for all channels: spike k comes if the potential reaches level k."
    : `Of ${plural(channels, "channel")}: lowest, median, highest. Spike k comes if the potential reaches level k.`;
}

function verdictOf(network: Network, fact: Fact): string {
  const verify = network.document.report.verify;
  if (!verify) return "";
  const reached = verify.coverage.levels[fact.name];
  const wrong = Object.entries(verify.engines).filter(([, verdict]) => verdict.differences.some((found) => found.name === fact.name));
  const silent = verify.coverage.silent.includes(fact.name) ? "; never fired, so this says nothing" : "";
  const level = reached ? `, counts up to ${reached[0]} of ${reached[1]}` : "";
  return wrong.length ? `differs on ${wrong.map(([name]) => name).join(", ")}` : `no spike differs${level}${silent}`;
}

function ofActivity(network: Network, fact: Fact, hooks: DetailsHooks): HTMLElement | null {
  const found: Population | undefined = network.activity.get(fact.name);
  if (!found) return null;
  const most = Math.max(...found.nsfr.flat(), 0);
  return section("Activity",
    h("p", { class: "quiet" }, activityOrigin(network)),
    pairs([
      ["spikes per neuron", short(found.mean_count)],
      ["nonzero counts", percent(found.nonzero)],
      ["silent neurons", `${integer(found.silent)} of ${integer(found.neurons)}`],
      ["spikes per sample", short(found.spikes)],
      ["SOPs per sample", found.sops === undefined ? "" : short(found.sops)],
      ["firing by tick", h("span", { class: "heatbox" }, heat(found.nsfr, most))],
      ["", found.nsfr.map((step) => step.slice(0, 8).map(percent).join("  ")).slice(0, 4).join(" | ")],
    ]),
    h("h4", {}, "Spike counts"), countHistogram(found.histogram),
    hooks.hasMaps ? button("Spike maps and raster", () => hooks.maps(fact.name)) : null);
}

/** On what activity was recorded, in a sentence. */
export function activityOrigin(network: Network): string {
  const { profile, reference } = network.document;
  if (profile) return `Profile: ${plural(profile.samples, "sample")} of ${profile.data}, engine ${profile.engine}.`;
  if (reference) return `${plural(reference.samples, "sample")} that the file keeps; give --profile for a whole data set.`;
  return "Nothing is recorded: give --profile p.json.";
}

function ofPotential(fact: Fact): HTMLElement {
  const left = Object.entries(fact.left ?? {});
  const most = Math.max(...left.map(([, bits]) => bits));
  const less = left.filter(([, bits]) => bits < most).map(([name, bits]) => (bits < 0 ? `${name} lacks ${-bits}` : `${name} ${bits}`));
  return section("Membrane potential",
    pairs([
      ["shape", shape(fact.shape)],
      ["proved", `${range(fact.low ?? 0, fact.high ?? 0)}, ${plural(fact.bits ?? 0, "bit")}`],
      ["observed", fact.observed ? `${range(...fact.observed)}, ${plural(fact.observed_bits ?? 0, "bit")}` : "not yet"],
      ["bits left", left.length ? [String(most), ...less].join("; ") : ""],
      ["bits left, slices", typeof fact.slice_left === "number" ? String(fact.slice_left) : ""],
      ["bias", fact.bias ? range(...fact.bias) : ""],
    ]),
    rangeBar([fact.low ?? 0, fact.high ?? 0], fact.observed));
}

function ofProjection(projection: Projection): HTMLElement {
  const { low, high } = projection;
  return section(projection.kind === "identity" ? "Synapses: as they are" : `Weights: ${projection.kind}`,
    pairs([
      ["reads", projection.reads],
      ["weights", projection.shape.length ? shape(projection.shape) : ""],
      ["range", low === null || high === null ? "" : range(low, high)],
      ["zeros", projection.zeros === null ? "" : percent(projection.zeros)],
      ["slices", projection.slices ? `${projection.slices} of 8 bits${projection.shift ? `, shifted by ${projection.shift}` : ""}` : ""],
      ["fan-in", integer(projection.fan_in)],
      ["payload", integer(projection.payload)],
    ]),
    projection.histogram && low !== null && high !== null
      ? histogram(projection.histogram, `histogram of the weights from ${integer(low)} to ${integer(high)}`, [integer(low), integer(high)]) : null);
}

// -- nodes of a graph ------------------------------------------------------------------------

function ofConstants(graph: StageGraph, node: GraphNode): HTMLElement | null {
  const named = (node.constants ?? []).map((name): [string, Constant | undefined] => [name, graph.stage.constants[name]]);
  const rows = named.map(([name, held]): [string, string] => [name, held ? constantText(held) : ""]);
  return rows.length ? section("Constants", pairs(rows)) : null;
}

function constantText(held: Constant): string {
  if (held.values) return `${held.type}  ${held.values.map(real).join(", ")}`;
  if (held.min === undefined || held.max === undefined) return held.type;
  return `${held.type}  ${real(held.min)} … ${real(held.max)}, mean ${real(held.mean ?? 0)}, std ${real(held.std ?? 0)}`;
}

function ofAttributes(node: GraphNode): HTMLElement | null {
  const rows = Object.entries(node.attributes ?? {});
  return rows.length ? section("Attributes", pairs(rows)) : null;
}

function neighbours(graph: StageGraph, index: number, hooks: DetailsHooks): HTMLElement {
  const links = (found: number[]) => h("ul", { class: "links" }, ...found.slice(0, 24).map((other) => h("li", {}, button(graph.node(other).name, () => hooks.select(`n:${other}`), { class: "link" }))));
  const reads = [...new Set(graph.node(index).inputs ?? [])];
  const readers = graph.readers[index] ?? [];
  return section("Around it", pairs([["reads", reads.length ? links(reads) : ""], ["read by", readers.length ? links(readers) : ""]]));
}

/** Where the same module stands in other stages. */
function elsewhere(network: Network, graph: StageGraph, node: GraphNode, hooks: DetailsHooks): HTMLElement | null {
  if (!node.module) return null;
  const rows = [...network.stages.values()].filter((other) => other !== graph).map((other): [string, HTMLElement | string] => {
    const same = other.stage.nodes.filter((candidate) => candidate.module === node.module);
    const first = same[0];
    const text = same.slice(0, 6).map((candidate) => candidate.op).join(", ") + (same.length > 6 ? ` and ${same.length - 6} more` : "");
    return [other.stage.name, first ? button(text, () => hooks.go(other.stage.name, first.name), { class: "link" }) : "–"];
  });
  return section("The module in other stages", pairs(rows));
}
