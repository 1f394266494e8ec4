/** Whole-network views: populations, passes, verification and precision, activity, energy. */
import { bars, heat, meter, series, withMeter, type Bar } from "./charts";
import type { EnergyModel, Fact, LayerEnergy, Pass, Population, Profile, ProfileLayer, Way } from "./document";
import { type Column, button, h, pairs, part, table } from "./dom";
import { energy, integer, percent, plural, shape, short } from "./format";
import { activityOrigin } from "./details";
import type { Network } from "./network";

/** What a panel can ask of the page. */
export interface PanelHooks {
  /** To the population in the graph. */
  population: (fact: Fact) => void;
  /** Marks what a pass made. */
  pass: (stage: string, pass: string) => void;
}

// -- populations -----------------------------------------------------------------------------

export function populationsPanel(network: Network, hooks: PanelHooks): HTMLElement[] {
  const facts = network.populations;
  const potentials = new Map(network.document.program.filter((fact) => fact.type === "accumulator").map((fact) => [fact.name, fact]));
  const activity = (fact: Fact) => network.activity.get(fact.name);
  const most = Math.max(...facts.map((fact) => fact.changed ?? 0));
  const busiest = Math.max(...facts.map((fact) => activity(fact)?.mean_count ?? 0));
  const columns: Column<Fact>[] = [
    { head: "population", cell: (fact) => fact.module || fact.name, by: (fact) => fact.module || fact.name },
    { head: "shape", cell: (fact) => shape(fact.shape), by: (fact) => fact.neurons, number: true },
    { head: "D", cell: (fact) => String(fact.D), by: (fact) => fact.D, number: true },
    { head: "window", title: "firing window", cell: (fact) => String(fact.window), by: (fact) => fact.window, number: true },
    { head: "bits", title: "proved of the potential", cell: (fact) => String(potentials.get(fact.source ?? "")?.bits ?? ""), by: (fact) => potentials.get(fact.source ?? "")?.bits, number: true },
    { head: "changed", title: "share of activations that are not the trained network's, end to end", cell: (fact) => withMeter(percent(fact.changed), fact.changed, most), by: (fact) => fact.changed, number: true },
    { head: "by own weights", title: "by its own weight quantisation alone", cell: (fact) => percent(fact.changed_teacher_forced), by: (fact) => fact.changed_teacher_forced, number: true },
    { head: "saturated", title: "share of spike counts that are D", cell: (fact) => percent(fact.saturated), by: (fact) => fact.saturated, number: true },
    ...(network.activity.size ? [
      { head: "spikes/neuron", title: "mean spike count", cell: (fact: Fact) => withMeter(short(activity(fact)?.mean_count ?? 0), activity(fact)?.mean_count, busiest), by: (fact: Fact) => activity(fact)?.mean_count, number: true },
      { head: "silent", title: "neurons that never fired", cell: (fact: Fact) => integer(activity(fact)?.silent ?? 0), by: (fact: Fact) => activity(fact)?.silent, number: true },
    ] : []),
    ...(network.document.profile ? [
      { head: "SOPs", title: "per sample", cell: (fact: Fact) => short(activity(fact)?.sops ?? 0), by: (fact: Fact) => activity(fact)?.sops, number: true },
    ] : []),
  ];
  return [table(`${plural(facts.length, "population")}. ${activityOrigin(network)}`, columns, facts, hooks.population)];
}

// -- passes ----------------------------------------------------------------------------------

/** Which stage a pass ends in: the first whose graph it made nodes of, or that of the pass after it. */
export function stageOf(network: Network, pass: string): string {
  for (const graph of network.stages.values()) if (graph.stage.nodes.some((node) => node.pass === pass)) return graph.stage.name;
  return "";
}

export function passesPanel(network: Network, hooks: PanelHooks): HTMLElement[] {
  const made = (pass: Pass, stage: string) => network.stages.get(stage)?.stage.nodes.filter((node) => node.pass === pass.name).length ?? 0;
  const stages = [...network.stages.keys()];
  const columns: Column<Pass>[] = [
    { head: "pass", cell: (pass) => pass.name },
    { head: "rewrites", cell: (pass) => integer(pass.rewrites), by: (pass) => pass.rewrites, number: true },
    { head: "values compared", cell: (pass) => (pass.checked ? integer(pass.checked) : "–"), by: (pass) => pass.checked, number: true },
    { head: "worst change", title: "relative to sum|w||a|", cell: (pass) => (pass.checked ? pass.worst.toExponential(1) : "–"), by: (pass) => pass.worst, number: true },
    ...stages.map((stage): Column<Pass> => ({
      head: stage, title: `nodes of stage ${stage} that it made`, number: true,
      cell: (pass) => (made(pass, stage) ? button(integer(made(pass, stage)), () => hooks.pass(stage, pass.name), { class: "link", "aria-label": `show ${made(pass, stage)} nodes of ${pass.name} in ${stage}` }) : "–"),
      by: (pass) => made(pass, stage),
    })),
  ];
  const law = network.document.report.import_law;
  const told = law ? `Imported graph beside ${law.against}: ${plural(law.values, "value")} compared on ${plural(law.samples, "sample")}, off by ${law.worst.toExponential(1)} of sum|w||a| at most (${law.margin.toExponential(0)} allowed). ` : "";
  return [
    table("Passes in the order in which they ran, and how many nodes of each stage they made", columns, network.document.passes),
    part("From stage to stage", ...stages.map((stage) => changesLine(network, stage))),
    h("p", { class: "quiet" }, told),
  ];
}

function changesLine(network: Network, stage: string): HTMLElement | null {
  const changes = network.changes(stage);
  if (!changes) return null;
  const count = (what: string) => integer(changes.nodes.filter((change) => change === what).length);
  return h("p", {}, `${stage}: ${count("new")} nodes are new, ${count("changed")} changed, ${count("same")} as before; ${integer(changes.gone.length)} of ${network.before(stage)?.stage.name ?? ""} are gone.`);
}

// -- verification ----------------------------------------------------------------------------

interface Verified {
  fact: Fact;
  reached: [number, number] | undefined;
  wrong: string[];
  compared: number;
}

export function verificationPanel(network: Network, hooks: PanelHooks): HTMLElement[] {
  const { report, timesteps } = network.document;
  const { verify } = report;
  if (!verify) return [h("p", {}, "The file tells of no verification.")];
  const engines = Object.entries(verify.engines).map(([name, verdict]): [string, string] => [name,
    `${plural(verdict.populations, "population")}, ${integer(verdict.spikes)} spikes, ${integer(verdict.elements)} numbers compared, ${integer(verdict.mismatched)} differ`]);
  const spikes = new Map(report.layers.map((layer) => [layer.population, layer]));
  const rows = network.populations.map((fact): Verified => ({
    fact, reached: verify.coverage.levels[fact.name], compared: (fact.neurons ?? 0) * verify.samples * timesteps,
    wrong: Object.entries(verify.engines).filter(([, verdict]) => verdict.differences.some((found) => found.name === fact.name)).map(([name]) => name),
  }));
  const most = Math.max(...network.populations.map((fact) => fact.changed ?? 0));
  const columns: Column<Verified>[] = [
    { head: "population", cell: ({ fact }) => fact.module || fact.name, by: ({ fact }) => fact.module },
    { head: "counts compared", title: "on each engine", cell: ({ compared }) => integer(compared), by: ({ compared }) => compared, number: true },
    { head: "differ", cell: ({ wrong }) => (wrong.length ? wrong.join(", ") : "0"), by: ({ wrong }) => wrong.length, number: true },
    { head: "highest count", title: "reached in the comparison, of D", cell: ({ reached }) => (reached ? `${reached[0]} of ${reached[1]}` : "–"), by: ({ reached }) => reached?.[0], number: true },
    { head: "spikes", title: "on the calibration data", cell: ({ fact }) => told(spikes.get(fact.name)?.spikes), by: ({ fact }) => spikes.get(fact.name)?.spikes, number: true },
    { head: "trained network's", title: "its spikes on the same data", cell: ({ fact }) => told(spikes.get(fact.name)?.trained_spikes), by: ({ fact }) => spikes.get(fact.name)?.trained_spikes, number: true },
    { head: "changed", title: "activations that are not the trained network's", cell: ({ fact }) => withMeter(percent(fact.changed), fact.changed, most), by: ({ fact }) => fact.changed, number: true },
    { head: "by own weights", cell: ({ fact }) => percent(fact.changed_teacher_forced), by: ({ fact }) => fact.changed_teacher_forced, number: true },
  ];
  const { coverage } = verify;
  return [
    pairs([
      ...engines,
      ["layer by layer", verify.layers ? `${verify.layers.engine}: ${integer(verify.layers.elements)} numbers on ${plural(verify.layers.samples, "sample")}, ${integer(verify.layers.mismatched)} differ` : ""],
      ["coverage", `${plural(verify.samples, "sample")} of ${integer(verify.available)}; ${coverage.fired} of ${coverage.populations} populations fired${coverage.silent.length ? "; of those that did not, this says nothing" : ""}`],
      ["precision", precision(network)],
    ]),
    table("Each population: what was compared, and how far it is from the trained network", columns, rows, ({ fact }) => hooks.population(fact)),
  ];
}

function told(count: number | undefined): string {
  return count === undefined ? "–" : integer(count);
}

function precision(network: Network): string {
  const { report } = network.document;
  if (report.changed === null || report.changed === undefined) return "not measured: the network was compiled without calibration data";
  const same = typeof report.agreement === "number" ? `, same class for ${percent(report.agreement)} of ${plural(report.samples ?? 0, "sample")}` : "";
  return `${percent(report.changed)} of ${integer(report.compared ?? 0)} activations are not the trained network's${same}`;
}

// -- activity --------------------------------------------------------------------------------

export function activityPanel(network: Network, hooks: PanelHooks, maps: HTMLElement): HTMLElement[] {
  const { profile, reference } = network.document;
  const rows = profile?.populations ?? reference?.populations ?? [];
  if (!rows.length) return [h("p", {}, activityOrigin(network)), maps];
  const most = Math.max(...rows.flatMap((row) => row.nsfr.flat()), 0);
  const busiest = Math.max(...rows.map((row) => row.mean_count));
  const columns: Column<Population>[] = [
    { head: "population", cell: (row) => row.module || row.name, by: (row) => row.module },
    { head: "neurons", cell: (row) => integer(row.neurons), by: (row) => row.neurons, number: true },
    { head: "NSFR by tick", title: "share of neurons that fire in each tick of its own windows", cell: (row) => h("span", { class: "heatbox" }, heat(row.nsfr, most)) },
    { head: "first tick", cell: (row) => percent(row.nsfr[0]?.[0]), by: (row) => row.nsfr[0]?.[0], number: true },
    { head: "spikes/neuron", cell: (row) => withMeter(short(row.mean_count), row.mean_count, busiest), by: (row) => row.mean_count, number: true },
    { head: "nonzero", cell: (row) => percent(row.nonzero), by: (row) => row.nonzero, number: true },
    { head: "saturated", cell: (row) => percent(row.saturated), by: (row) => row.saturated, number: true },
    { head: "silent", title: "neurons that never fired", cell: (row) => integer(row.silent), by: (row) => row.silent, number: true },
  ];
  const silent = rows.filter((row) => row.silent === row.neurons);
  const pick = (row: Population) => {
    const fact = network.facts.get(row.name);
    if (fact) hooks.population(fact);
  };
  return [
    h("p", { class: "quiet" }, activityOrigin(network)),
    profile ? part("Spikes in each clock tick", series(profile.events.per_tick, "mean spikes of a sample in each clock tick"), h("p", { class: "quiet" }, `Mean ${short(profile.events.mean)} a tick; the most that one sample had in a tick is ${short(profile.events.peak)}.`)) : null,
    silent.length ? h("p", {}, `Silent: ${silent.map((row) => row.module || row.name).join(", ")}.`) : h("p", {}, "Every population fired."),
    table("Populations, per sample", columns, rows, pick),
    maps,
  ].filter((part) => part !== null);
}

// -- energy ----------------------------------------------------------------------------------

const WAYS: readonly { way: Way; name: string; short: string }[] = [
  { way: "snn", name: "this network, spiking", short: "spiking" },
  { way: "quantised_skipping", name: "quantised ANN, zeros skipped", short: "ANN, skipping" },
  { way: "quantised", name: "quantised ANN, dense", short: "ANN, dense" },
  { way: "dense", name: "dense network", short: "dense" },
];

export function energyPanel(network: Network, hooks: PanelHooks, chosen: string, choose: (model: string) => void): HTMLElement[] {
  const { profile } = network.document;
  if (!profile) return [h("p", {}, "What it costs is told by a profile: snncc profile FILE.snn --input DATA -o p.json, then snncc inspect FILE.snn --html page.html --profile p.json.")];
  const names = Object.keys(profile.energy);
  const name = names.includes(chosen) ? chosen : (names[0] ?? "");
  const model = profile.energy[name];
  if (!model) return [h("p", {}, "The profile holds no energy model."), totals(profile)];
  const rows = WAYS.filter(({ way }) => model[way] !== null).map(({ way, name: label }): Bar => ({ label, value: model[way] ?? 0, text: energy(model[way]), strong: way === model.least }));
  return [
    modelField(names, name, model, choose),
    h("p", { class: "quiet" }, activityOrigin(network)),
    part("Energy per sample", bars(rows), h("p", {}, standing(model))),
    totals(profile),
    layersTable(profile, name, (layer) => {
      const fact = network.facts.get(layer.name);
      if (fact) hooks.population(fact);
    }),
    part("How it is reckoned",
      pairs(Object.entries(model.formula).map(([way, text]) => [WAYS.find((known) => known.way === way)?.name ?? way, h("span", { class: "formula" }, text)])),
      h("h3", {}, "Constants"), pairs(Object.entries(model.constants).map(([key, value]): [string, string] => [key, String(value)])),
      h("h3", {}, "Sources"),
      h("ul", { class: "sources" }, ...model.sources.map((source) => h("li", {}, source)))),
  ];
}

function modelField(names: string[], name: string, model: EnergyModel, choose: (model: string) => void): HTMLElement {
  const picker = h("select", { id: "energy-model" }, ...names.map((each) => h("option", { value: each, selected: each === name }, each)));
  picker.addEventListener("change", () => choose(picker.value));
  return h("p", { class: "field" }, h("label", { for: "energy-model" }, "Energy model"), picker, h("span", { class: "quiet" }, model.description));
}

/** Which of the four costs least, and how far the spiking network is from it. */
export function standing(model: LayerEnergy): string {
  const best = WAYS.find(({ way }) => way === model.least);
  if (!best || model.snn === null) return "";
  const told = best.way === "snn" ? "The spiking network costs least." : `Least costs the ${best.name}: the spiking network takes ${Number((model.snn / (model[best.way] ?? 1)).toPrecision(3))} times as much.`;
  if (model.rate === null || model.break_even === null) return told;
  const skipping = model.break_even_skipping === null ? "" : `, below ${percent(model.break_even_skipping)} less than one that skips zeros`;
  return `${told} ${percent(model.rate)} of its synapses are crossed at a tick; below ${percent(model.break_even)} spikes cost less than the dense quantised ANN${skipping}.`;
}

function totals(profile: Profile): HTMLElement {
  return part("Operations per sample", pairs([
    ["spikes", short(profile.spikes)], ["SOPs", short(profile.sops)], ["effective ACs", short(profile.acs)], ["MACs", short(profile.macs)], ["dense multiply-adds", short(profile.dense)],
  ]));
}

function layersTable(profile: Profile, model: string, pick: (layer: ProfileLayer) => void): HTMLElement {
  const of = (layer: ProfileLayer): LayerEnergy | undefined => layer.energy[model];
  const most = Math.max(...profile.layers.flatMap((layer) => WAYS.map(({ way }) => of(layer)?.[way] ?? 0)));
  const busiest = Math.max(...profile.layers.map((layer) => layer.sops));
  const column = ({ way, short: head }: (typeof WAYS)[number]): Column<ProfileLayer> => ({
    head, number: true, by: (layer) => of(layer)?.[way],
    cell: (layer) => h("span", { class: of(layer)?.least === way ? "metered least" : "metered" }, h("span", {}, energy(of(layer)?.[way])), meter(of(layer)?.[way] ?? 0, most)),
  });
  const columns: Column<ProfileLayer>[] = [
    { head: "layer", cell: (layer) => layer.module || layer.name, by: (layer) => layer.module },
    { head: "kind", cell: (layer) => layer.kind },
    { head: "SOPs", cell: (layer) => withMeter(short(layer.sops), layer.sops, busiest), by: (layer) => layer.sops, number: true },
    { head: "MACs", cell: (layer) => (layer.macs ? short(layer.macs) : "–"), by: (layer) => layer.macs, number: true },
    ...(profile.layers.some(of) ? WAYS.map(column) : []),
    { head: "rate", title: "spikes per synapse and tick", cell: (layer) => percent(of(layer)?.rate), by: (layer) => of(layer)?.rate, number: true },
    { head: "breaks even at", title: "rate below which spikes cost less than the dense quantised ANN", cell: (layer) => percent(of(layer)?.break_even), by: (layer) => of(layer)?.break_even, number: true },
  ];
  return table(`Layers under ${model}, per sample; the least of each in bold`, columns, profile.layers, pick);
}
