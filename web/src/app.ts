/** The page: its state, its parts, and how they follow each other. */
import { type Block, allBlocks, firstOpen } from "./blocks";
import { details } from "./details";
import type { Fact } from "./document";
import { button, h } from "./dom";
import { integer, plural, short } from "./format";
import { GraphView, type Look } from "./graphview";
import { keyboard } from "./keys";
import { Layouts } from "./layouts";
import { linkTo, parseLink } from "./links";
import { MapsView } from "./mapsview";
import type { Network, StageGraph } from "./network";
import { Outline } from "./outline";
import { activityPanel, energyPanel, passesPanel, populationsPanel, verificationPanel } from "./panels";
import { SearchBox } from "./searchbox";
import { themeButton } from "./theme";

const VIEWS = ["graph", "populations", "passes", "verification", "activity", "energy"] as const;
type ViewName = (typeof VIEWS)[number];

/** So many boxes are opened to begin with. */
const FIRST = 48;
/** Links name the stage where it is another one. */
const USUAL_STAGE = "spiking";

export class App {
  private stageName: string;
  private view: ViewName = "graph";
  private selected: string | null = null;
  private open: Set<string>;
  private marked = false;
  private markedPass = "";
  private model = "";
  private readonly layouts: Layouts;
  private readonly graphView: GraphView;
  private readonly outline: Outline;
  private readonly maps: MapsView;
  private readonly searchBox: SearchBox;
  private readonly parts = {
    stages: h("div", { class: "stages", role: "radiogroup", "aria-label": "Stage" }),
    tabs: h("div", { class: "tabs", role: "tablist", "aria-label": "Views" }),
    changes: h("p", { class: "changes quiet" }),
    main: h("main", { id: "main", tabindex: -1 }),
    panel: h("div", { class: "panel", role: "tabpanel", id: "panel", tabindex: 0 }),
    details: h("aside", { class: "details", "aria-label": "Details" }),
    outline: h("nav", { class: "outline", "aria-label": "Outline of the network" }),
    live: h("p", { class: "unseen", "aria-live": "polite" }),
    mark: h("input", { type: "checkbox", id: "mark" }),
    legend: legend(),
  };

  constructor(private readonly network: Network, code: string) {
    this.layouts = new Layouts(code);
    const link = parseLink(location.hash);
    this.stageName = this.network.stage(link.stage || USUAL_STAGE).stage.name;
    this.open = firstOpen(this.graph.root, FIRST);
    this.graphView = new GraphView({ look: (id) => this.look(id), select: (id) => this.select(id), toggle: (id) => this.toggle(id.slice(2)) });
    this.outline = new Outline({
      label: (id) => this.outlineLabel(id), isOpen: (path) => this.open.has(path),
      select: (id) => this.select(id, true), toggle: (path, open) => this.setOpen(path, open),
    });
    this.maps = new MapsView(network);
    this.searchBox = new SearchBox(() => this.graph, (id) => this.select(id, true));
  }

  private get graph(): StageGraph {
    return this.network.stage(this.stageName);
  }

  async start(): Promise<void> {
    document.title = `${this.network.document.name} – snncc`;
    document.body.append(...this.frame());
    keyboard(this);
    window.addEventListener("hashchange", () => void this.follow());
    this.parts.mark.addEventListener("change", () => this.setMarked(this.parts.mark.checked));
    this.drawStages();
    this.drawView();
    await this.layOut();
    this.graphView.fit();
    await this.follow();
    document.documentElement.dataset.ready = "true";
  }

  // -- parts of the page -------------------------------------------------------------------

  private frame(): HTMLElement[] {
    const { parts, network } = this;
    const tools = h("div", { class: "tools", role: "toolbar", "aria-label": "Graph" },
      button("+", () => this.graphView.zoom(1.25), { "aria-label": "Zoom in", title: "Zoom in (+)" }),
      button("−", () => this.graphView.zoom(0.8), { "aria-label": "Zoom out", title: "Zoom out (-)" }),
      button("Fit", () => this.graphView.fitAll(), { title: "Show all (0)" }),
      button("Open all", () => this.openAll(), { title: "Open every block (])" }),
      button("Close all", () => this.closeAll(), { title: "Close every block ([)" }),
      h("span", { class: "check" }, parts.mark, h("label", { for: "mark" }, "Mark changes")));
    parts.main.append(h("div", { class: "graphpane" }, tools, this.graphView.element, parts.legend), parts.panel);
    parts.outline.append(this.outline.element);
    const facts = h("p", { class: "facts" }, this.factLine());
    return [
      h("a", { class: "skip", href: "#main" }, "Skip to the network"),
      h("header", {}, h("div", { class: "line" }, h("h1", {}, network.document.name), facts, this.searchBox.element, themeButton()),
        h("div", { class: "line" }, parts.stages, parts.tabs, parts.changes)),
      parts.outline, parts.main, parts.details, parts.live,
      h("footer", {}, this.footLine()),
    ];
  }

  private factLine(): string {
    const { document: { timesteps, ticks, report }, populations } = this.network;
    const neurons = populations.reduce((sum, fact) => sum + (fact.neurons ?? 0), 0);
    const verified = report.verify ? (report.verify.mismatched ? `${integer(report.verify.mismatched)} spikes differ` : "verified, no spike differs") : "not verified";
    return [plural(populations.length, "population"), `${short(neurons)} neurons`, `T×D ${timesteps}×${ticks}`, `${integer(timesteps * report.windows)} windows, ${integer(timesteps * report.latency_ticks)} ticks`,
      typeof report.weight_bits === "number" ? `${report.weight_bits}-bit weights` : "", verified].filter(Boolean).join("  ·  ");
  }

  private footLine(): string {
    const { tools, sha256 } = this.network.document;
    return `snncc ${tools.snncc ?? ""} · artefact ${sha256.slice(0, 12)} · ${this.network.document.parts.host?.length ? `on the host: ${this.network.document.parts.host.join(", ")}` : "nothing on the host"}`;
  }

  private drawStages(): void {
    const names = [...this.network.stages.keys()];
    this.parts.stages.replaceChildren(...names.map((name, i) => {
      const isOn = name === this.stageName;
      return button(name, () => this.setStage(name), { role: "radio", "aria-checked": String(isOn), tabindex: isOn ? 0 : -1, title: `Stage ${name} (${i + 1})` });
    }));
    arrows(this.parts.stages, "radio");
    const changes = this.network.changes(this.stageName);
    const before = this.network.before(this.stageName)?.stage.name;
    const count = (what: string) => integer(changes?.nodes.filter((change) => change === what).length ?? 0);
    this.parts.changes.textContent = changes && before
      ? `${plural(changes.nodes.length, "node")}: ${count("new")} new and ${count("changed")} changed since ${before}; ${integer(changes.gone.length)} of ${before} are gone`
      : `${plural(this.graph.stage.nodes.length, "node")}, as imported`;
  }

  private drawView(): void {
    this.parts.tabs.replaceChildren(...VIEWS.map((name) => {
      const isOn = name === this.view;
      return button(name, () => this.setView(name), { role: "tab", "aria-selected": String(isOn), "aria-controls": "panel", tabindex: isOn ? 0 : -1 });
    }));
    arrows(this.parts.tabs, "tab");
    document.body.dataset.view = this.view;
    this.parts.panel.setAttribute("aria-label", this.view);
    this.parts.panel.replaceChildren(...this.panel());
    if (this.view === "activity") void this.maps.draw();
    if (this.view === "graph") this.graphView.redraw();
  }

  private panel(): HTMLElement[] {
    const hooks = { population: (fact: Fact) => this.showPopulation(fact), pass: (stage: string, pass: string) => this.showPass(stage, pass) };
    switch (this.view) {
      case "graph": return [];
      case "populations": return populationsPanel(this.network, hooks);
      case "passes": return passesPanel(this.network, hooks);
      case "verification": return verificationPanel(this.network, hooks);
      case "activity": return activityPanel(this.network, hooks, this.maps.element);
      case "energy": return energyPanel(this.network, hooks, this.model, (model) => {
        this.model = model;
        this.drawView();
      });
    }
  }

  private drawDetails(): void {
    const { selected } = this;
    const hooks = {
      select: (id: string) => this.select(id, true), hasMaps: Boolean(this.network.document.maps?.samples.length),
      go: (stage: string, path: string) => this.go(stage, path), maps: (population: string) => this.showMaps(population),
    };
    this.parts.details.replaceChildren(...(selected === null ? [h("p", { class: "quiet" }, "Choose a block or a node.")] : details(this.network, this.graph, selected, hooks)));
    this.parts.details.scrollTop = 0;
  }

  // -- what is shown of a box --------------------------------------------------------------

  private look(id: string): Look {
    if (id.startsWith("b:")) return this.blockLook(id);
    const index = Number(id.slice(2));
    const node = this.graph.node(index);
    const { title, sub } = this.nodeLabel(index);
    const change = this.marked ? this.changes?.nodes[index] : undefined;
    const mark = this.markedPass ? (node.pass === this.markedPass ? "new" : "") : change === "same" ? "" : (change ?? "");
    return { title, sub, kind: node.kind ?? (node.op === "input" || node.op === "output" ? "end" : ""), mark };
  }

  private get changes(): ReturnType<Network["changes"]> {
    return this.network.changes(this.stageName);
  }

  private nodeLabel(index: number): { title: string; sub: string } {
    const node = this.graph.node(index);
    const around = this.graph.blockOf(index).path;
    const own = node.module ?? "";
    const isModule = own !== around && own !== "";
    if (isModule) return { title: around ? own.slice(around.length + 1) : own, sub: `${node.op}  ${node.type ?? ""}` };
    return node.op === "input" || node.op === "output" ? { title: `${node.op} ${node.name}`, sub: node.type ?? "" } : { title: node.op, sub: node.type ?? "" };
  }

  private blockLook(id: string): Look {
    const block = this.graph.blocks.get(id.slice(2));
    const facts = this.network.factsOf(this.graph, id).filter((fact) => fact.type === "neuron");
    const marks = this.marked || this.markedPass ? this.graph.members(id).filter((index) => this.look(`n:${index}`).mark).length : 0;
    const neurons = facts.length ? `${plural(facts.length, "population")}, ` : "";
    return { title: block?.label ?? "", sub: `${neurons}${plural(block?.size ?? 0, "node")}${marks ? `, ${marks} marked` : ""}`, kind: "", mark: marks ? "new" : "", bars: facts.map((fact) => this.share(fact)) };
  }

  /** How high a population's bar is in the strip of its block: its firing, or its changes. */
  private share(fact: Fact): number {
    const { activity, busiest, mostChanged } = this.network;
    const found = activity.get(fact.name);
    return found ? Math.sqrt(found.mean_count / busiest) : Math.sqrt((fact.changed ?? 0) / mostChanged);
  }

  private outlineLabel(id: string): { title: string; note: string; kind: string } {
    if (id.startsWith("b:")) {
      const block = this.graph.blocks.get(id.slice(2));
      return { title: block?.label ?? "", note: String(block?.size ?? ""), kind: "block" };
    }
    const { title } = this.nodeLabel(Number(id.slice(2)));
    const node = this.graph.node(Number(id.slice(2)));
    return { title, note: title === node.op ? "" : node.op, kind: node.kind ?? "" };
  }

  // -- what people do ----------------------------------------------------------------------

  select(id: string | null, reveal = false): void {
    this.selected = id;
    if (id !== null && reveal) this.openAround(id);
    this.drawDetails();
    this.outline.show(this.graph.root, id);
    this.graphView.light(id, this.litValues(id));
    this.say(id);
    this.writeLink();
    if (id !== null && reveal) void this.layOut().then(() => this.graphView.reveal(id));
  }

  /** Values that the box reads or makes. */
  private litValues(id: string | null): Set<number> {
    const members = id === null ? [] : this.graph.members(id);
    const inside = new Set(members);
    const lit = new Set<number>();
    for (const index of members) {
      for (const input of this.graph.node(index).inputs ?? []) if (!inside.has(input)) lit.add(input);
      if ((this.graph.readers[index] ?? []).some((reader) => !inside.has(reader))) lit.add(index);
    }
    return lit;
  }

  private say(id: string | null): void {
    if (id === null) return;
    const { title, note } = this.outlineLabel(id);
    this.parts.live.textContent = `${title} ${note}`;
  }

  private openAround(id: string): void {
    const around: Block[] = id.startsWith("n:") ? (this.graph.chains.get(Number(id.slice(2))) ?? []) : above(this.graph.blocks.get(id.slice(2)));
    for (const block of around) this.open.add(block.path);
  }

  toggle(path: string): void {
    this.setOpen(path, !this.open.has(path));
  }

  private setOpen(path: string, open: boolean): void {
    if (open) this.open.add(path);
    else this.open.delete(path);
    const before = this.graphView.box(`b:${path}`);
    this.outline.show(this.graph.root, this.selected);
    void this.layOut().then(() => this.graphView.anchored(`b:${path}`, before));
  }

  openAll(): void {
    this.open = new Set(allBlocks(this.graph.root).map((block) => block.path).filter(Boolean));
    this.outline.show(this.graph.root, this.selected);
    void this.layOut().then(() => this.graphView.fit());
  }

  closeAll(): void {
    this.open.clear();
    this.outline.show(this.graph.root, this.selected);
    void this.layOut().then(() => this.graphView.fit());
  }

  setStage(name: string, path?: string): void {
    if (!this.network.stages.has(name)) return;
    const kept = path ?? (this.selected === null ? "" : this.pathOf(this.selected));
    this.stageName = name;
    this.selected = null;
    this.markedPass = "";
    this.graphView.clear(); // its boxes are those of the other stage
    this.drawStages();
    this.select(kept ? this.graph.find(kept) : null, Boolean(kept));
    void this.layOut().then(() => (this.selected === null ? this.graphView.fit() : this.graphView.reveal(this.selected, true)));
  }

  stageAt(place: number): void {
    const name = [...this.network.stages.keys()][place];
    if (name) this.setStage(name);
  }

  setView(name: ViewName): void {
    this.view = name;
    this.drawView();
    this.writeLink();
  }

  private setMarked(marked: boolean): void {
    this.marked = marked;
    this.markedPass = "";
    this.parts.mark.checked = marked;
    this.graphView.redraw();
  }

  private showPass(stage: string, pass: string): void {
    this.setView("graph");
    this.setStage(stage);
    this.markedPass = pass;
    this.graphView.redraw();
  }

  private showPopulation(fact: Fact): void {
    const index = this.graph.nodesOf(fact.name)[0];
    if (index === undefined) return;
    this.setView("graph");
    this.select(`n:${index}`, true);
  }

  private showMaps(population: string): void {
    this.setView("activity");
    this.maps.show(population);
    this.maps.element.scrollIntoView();
  }

  private go(stage: string, path: string): void {
    this.setStage(stage, path);
  }

  /** To the box before, after, left or right of the chosen one on the screen. */
  step(dx: number, dy: number): void {
    const from = this.selected === null ? undefined : this.graphView.box(this.selected);
    const boxes = this.graphView.boxes.filter((box) => !box.open || box.id === this.selected);
    const next = from ? nearest(from, boxes, dx, dy) : boxes[0];
    if (!next) return;
    this.select(next.id);
    this.graphView.reveal(next.id);
  }

  enter(): void {
    if (this.selected?.startsWith("b:")) this.toggle(this.selected.slice(2));
  }

  focusSearch(): void {
    this.searchBox.focus();
  }

  zoom(factor: number): void {
    this.graphView.zoom(factor);
  }

  fit(): void {
    this.graphView.fitAll();
  }

  get canvas(): HTMLElement {
    return this.graphView.element;
  }

  // -- layout and links --------------------------------------------------------------------

  private async layOut(): Promise<void> {
    const { stageName } = this;
    const scene = await this.layouts.scene(stageName, this.graph.stage.nodes, this.open);
    if (stageName !== this.stageName) return; // another stage was chosen meanwhile
    this.graphView.show(scene);
  }

  private pathOf(id: string): string {
    return id.startsWith("b:") ? id.slice(2) : this.graph.node(Number(id.slice(2))).name;
  }

  private writeLink(): void {
    const path = this.selected === null ? "" : this.pathOf(this.selected);
    const link = linkTo({ path, stage: this.stageName === USUAL_STAGE ? "" : this.stageName, view: this.view === "graph" ? "" : this.view });
    if (link !== location.hash) history.replaceState(null, "", link);
  }

  /** Shows what the link names. */
  private async follow(): Promise<void> {
    const { path, stage, view } = parseLink(location.hash);
    if (path === "main") return; // of "skip to the network"
    if (this.network.stages.has(stage || USUAL_STAGE) && (stage || USUAL_STAGE) !== this.stageName) this.setStage(stage || USUAL_STAGE, path);
    const wanted = VIEWS.find((name) => name === view) ?? "graph";
    if (wanted !== this.view) this.setView(wanted);
    const found = path ? this.graph.find(path) : null;
    if (path && found === null) this.parts.live.textContent = `no module ${path} in stage ${this.stageName}`;
    if (found === this.selected) {
      this.outline.show(this.graph.root, found);
      this.drawDetails();
      return;
    }
    this.select(found);
    if (found === null) return;
    this.openAround(found);
    this.outline.show(this.graph.root, found);
    await this.layOut();
    this.graphView.reveal(found, true);
  }
}

function above(block: Block | undefined): Block[] {
  const found: Block[] = [];
  for (let at = block?.parent; at?.parent; at = at.parent) found.push(at);
  return found;
}

interface Placed {
  id: string;
  x: number;
  y: number;
  width: number;
  height: number;
}

/** The nearest box in a direction; what is beside the way counts double. */
function nearest<B extends Placed>(from: B, boxes: readonly B[], dx: number, dy: number): B | undefined {
  const centre = (box: Placed) => [box.x + box.width / 2, box.y + box.height / 2] as const;
  const [x, y] = centre(from);
  const scored = boxes.filter((box) => box.id !== from.id).map((box) => {
    const [bx, by] = centre(box);
    const along = (bx - x) * dx + (by - y) * dy;
    const beside = Math.abs((bx - x) * dy) + Math.abs((by - y) * dx);
    return { box, along, score: along + 2 * beside };
  });
  return scored.filter(({ along }) => along > 4).sort((a, b) => a.score - b.score)[0]?.box;
}

/** Arrow keys move within a group of buttons, of which one is in the order of tabs. */
function arrows(group: HTMLElement, role: string): void {
  group.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const each = [...group.querySelectorAll<HTMLElement>(`[role=${role}]`)];
    const at = each.findIndex((element) => element === document.activeElement);
    if (step === undefined || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = (at + step + each.length) % each.length;
    each[next]?.click();
    group.querySelectorAll<HTMLElement>(`[role=${role}]`)[next]?.focus();
  };
}

function legend(): HTMLElement {
  const kinds = [["neuron", "neurons"], ["layer", "layer with weights"], ["product", "attention, products"], ["sum", "sum"], ["pool", "pool"], ["view", "same numbers, other axes"]];
  return h("details", { class: "legend" }, h("summary", {}, "Legend"),
    h("ul", {}, ...kinds.map(([kind, text]) => h("li", {}, h("span", { class: `swatch ${kind}` }), text ?? "")),
      h("li", {}, h("span", { class: "swatch strip" }), "bars in a block: its populations, by spikes per neuron (else by changed activations)"),
      h("li", {}, h("span", { class: "swatch dot" }), "new or changed in this stage")),
    h("p", {}, "Drag or scroll to pan, Ctrl and scroll to zoom. Click a box for details, its sign (or double-click) to open it. Keys: / search, arrows to walk, Enter to open, 1–4 stage, + − 0 zoom, [ ] close and open all."));
}

