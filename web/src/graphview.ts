/** The graph on the screen: what is in view is drawn, nothing else; panning moves one group. */
import { h, s } from "./dom";
import { begun, fitted } from "./format";
import type { Box, Piece, Scene } from "./layout";

/** What a box says. */
export interface Look {
  title: string;
  sub: string;
  kind: string;
  /** new, changed: since the stage before. */
  mark?: string;
  /** A block's populations, 0 to 1 each. */
  bars?: number[];
}

export interface Hooks {
  look: (id: string) => Look;
  select: (id: string | null) => void;
  toggle: (id: string) => void;
}

interface View {
  x: number;
  y: number;
  scale: number;
}

interface Area {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

const SCALES = { least: 0.02, most: 2.5 };
/** Below this scale letters are too small to read, and are left out. */
const FAR = 0.42;
const LETTER = 6.3;

export class GraphView {
  readonly element: HTMLElement;
  private readonly svg = s("svg", { class: "graph", "aria-hidden": "true" });
  private readonly world = s("g");
  private readonly layers = { open: s("g"), edges: s("g"), boxes: s("g") };
  private readonly drawn = new Map<string, SVGElement>();
  private scene: Scene = { width: 0, height: 0, boxes: [], pieces: [] };
  private bounds: Area[] = [];
  private byId = new Map<string, Box>();
  private view: View = { x: 0, y: 0, scale: 1 };
  private covered: Area | null = null;
  private far = false;
  private isPrinting = false;
  private asked = 0;
  private selected: string | null = null;
  private lit: ReadonlySet<number> = new Set();

  constructor(private readonly hooks: Hooks) {
    this.world.append(this.layers.open, this.layers.edges, this.layers.boxes);
    this.svg.append(this.world);
    this.element = h("div", { class: "canvas", tabindex: 0, role: "group", "aria-label": "Graph of the network; the outline lists the same" }, this.svg);
    this.listen();
    new ResizeObserver(() => this.refresh(true)).observe(this.element);
    window.addEventListener("beforeprint", () => this.print());
    window.addEventListener("afterprint", () => this.leavePrint());
  }

  /** On paper the whole scene is seen, with all that it says. */
  private print(): void {
    this.isPrinting = true;
    this.far = false;
    this.svg.classList.remove("far");
    this.svg.setAttribute("viewBox", `0 0 ${this.scene.width} ${this.scene.height}`);
    this.world.setAttribute("transform", "");
    this.empty();
    this.fill({ left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity });
  }

  private leavePrint(): void {
    this.isPrinting = false;
    this.svg.removeAttribute("viewBox");
    this.redraw();
  }

  show(scene: Scene): void {
    this.scene = scene;
    this.bounds = scene.pieces.map(areaOf);
    this.byId = new Map(scene.boxes.map((box) => [box.id, box]));
    this.redraw();
  }

  /** Until the next scene there is none. */
  clear(): void {
    this.show({ width: 0, height: 0, boxes: [], pieces: [] });
  }

  /** Marks a box, and the edges along which values of these nodes go. */
  light(selected: string | null, values: ReadonlySet<number>): void {
    this.selected = selected;
    this.lit = values;
    this.redraw();
  }

  redraw(): void {
    this.empty();
    this.refresh(true);
  }

  private empty(): void {
    for (const element of this.drawn.values()) element.remove();
    this.drawn.clear();
    this.covered = null;
  }

  box(id: string): Box | undefined {
    return this.byId.get(id);
  }

  get boxes(): readonly Box[] {
    return this.scene.boxes;
  }

  /** The whole graph; of a very tall one its first part, readable. */
  fit(): void {
    const { clientWidth: width, clientHeight: height } = this.element;
    const wide = Math.min((width - 16) / (this.scene.width || 1), 1);
    const scale = Math.max(Math.min(wide, (height - 16) / (this.scene.height || 1)), Math.min(wide, 0.55));
    this.view = { scale, x: (width - this.scene.width * scale) / 2, y: 8 };
    this.refresh(true);
  }

  /** All of it, however small. */
  fitAll(): void {
    const { clientWidth: width, clientHeight: height } = this.element;
    const scale = clamp(Math.min((width - 16) / this.scene.width, (height - 16) / this.scene.height, 1), SCALES.least, 1);
    this.view = { scale, x: (width - this.scene.width * scale) / 2, y: Math.max(8, (height - this.scene.height * scale) / 2) };
    this.refresh(true);
  }

  /** Moves so that a box is seen; it stays where it is if it is. */
  reveal(id: string, always = false): void {
    const box = this.byId.get(id);
    if (!box) return;
    const { clientWidth: width, clientHeight: height } = this.element;
    const { x, y, scale } = this.view;
    const [left, top] = [box.x * scale + x, box.y * scale + y];
    const isSeen = left >= 0 && top >= 0 && left + box.width * scale <= width && top + Math.min(box.height * scale, height) <= height;
    if (isSeen && !always && scale >= FAR) return;
    const size = Math.max(scale, 0.8);
    this.view = {
      scale: size,
      x: width / 2 - (box.x + box.width / 2) * size,
      y: Math.min(8, box.height * size > height * 0.8 ? 24 - box.y * size : height / 2 - (box.y + box.height / 2) * size),
    };
    this.refresh(true);
  }

  /** Keeps a box where it was on the screen, if both scenes have it. */
  anchored(id: string, before: Box | undefined): void {
    const now = this.byId.get(id);
    if (!now || !before) return;
    this.view.x += (before.x + before.width / 2 - now.x - now.width / 2) * this.view.scale;
    this.view.y += (before.y - now.y) * this.view.scale;
    this.refresh(true);
  }

  zoom(factor: number, at?: { x: number; y: number }): void {
    const { clientWidth: width, clientHeight: height } = this.element;
    const { x, y } = at ?? { x: width / 2, y: height / 2 };
    const scale = clamp(this.view.scale * factor, SCALES.least, SCALES.most);
    const ratio = scale / this.view.scale;
    this.view = { scale, x: x - (x - this.view.x) * ratio, y: y - (y - this.view.y) * ratio };
    this.refresh(false);
  }

  pan(dx: number, dy: number): void {
    this.view.x += dx;
    this.view.y += dy;
    this.refresh(false);
  }

  // -- drawing -----------------------------------------------------------------------------

  private refresh(now: boolean): void {
    if (now) {
      this.draw();
    } else {
      this.asked ||= requestAnimationFrame(() => this.draw());
    }
  }

  private draw(): void {
    cancelAnimationFrame(this.asked);
    this.asked = 0;
    if (this.isPrinting) return;
    const { x, y, scale } = this.view;
    this.world.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${scale.toFixed(4)})`);
    const far = scale < FAR;
    if (far !== this.far) {
      this.far = far;
      this.svg.classList.toggle("far", far);
      this.empty();
    }
    const seen = this.seen(0);
    if (this.covered && isInside(seen, this.covered)) return;
    if (far) this.fillFar();
    else this.fill(this.seen(0.35));
  }

  /** From afar nothing can be read: the whole scene is a few paths, and panning only moves them. */
  private fillFar(): void {
    this.covered = { left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity };
    const faces = new Map<string, string>();
    for (const box of this.scene.boxes) {
      const { kind, mark } = this.hooks.look(box.id);
      const name = ["face-far", box.open ? "open" : box.id.startsWith("b:") ? "block" : kind, mark ?? "", box.id === this.selected ? "selected" : ""].join(" ");
      faces.set(name, `${faces.get(name) ?? ""}M${box.x.toFixed(0)},${box.y.toFixed(0)}h${box.width.toFixed(0)}v${box.height.toFixed(0)}h${(-box.width).toFixed(0)}z`);
    }
    const lines = (isLit: boolean) => this.scene.pieces.filter((piece) => this.lit.has(piece.value) === isLit).map(({ points }) => straight(points)).join("");
    this.add("far:edges", this.layers.edges, s("path", { class: "edge", d: lines(false) }));
    this.add("far:lit", this.layers.edges, s("path", { class: "edge lit", d: lines(true) }));
    for (const [name, d] of faces) this.add(`far:${name}`, name.includes(" open") ? this.layers.open : this.layers.boxes, s("path", { class: name, d }));
    this.scene.boxes.filter((box) => box.id.startsWith("b:") && box.depth <= (this.view.scale < 0.15 ? 0 : 1)).forEach((box) => {
      this.add(`far:${box.id}`, this.layers.boxes, s("text", { x: box.x + 10, y: box.y + 24, class: "title" }, fitted(this.hooks.look(box.id).title, Math.floor(box.width / 12))));
    });
  }

  /** What is on the screen, in units of the scene, and so much more on each side. */
  private seen(margin: number): Area {
    const { clientWidth: width, clientHeight: height } = this.element;
    const { x, y, scale } = this.view;
    const [dx, dy] = [(width * margin) / scale, (height * margin) / scale];
    return { left: -x / scale - dx, top: -y / scale - dy, right: (width - x) / scale + dx, bottom: (height - y) / scale + dy };
  }

  private fill(area: Area): void {
    this.covered = area;
    const wanted = new Set<string>();
    for (const box of this.scene.boxes) {
      if (!overlaps(area, { left: box.x, top: box.y, right: box.x + box.width, bottom: box.y + box.height })) continue;
      wanted.add(box.id);
      if (!this.drawn.has(box.id)) this.add(box.id, box.open ? this.layers.open : this.layers.boxes, this.boxElement(box));
    }
    this.scene.pieces.forEach((piece, i) => {
      const bounds = this.bounds[i];
      if (!bounds || !overlaps(area, bounds)) return;
      const id = `e:${i}`;
      wanted.add(id);
      if (!this.drawn.has(id)) this.add(id, this.layers.edges, this.pieceElement(piece));
    });
    for (const [id, element] of this.drawn) {
      if (wanted.has(id)) continue;
      element.remove();
      this.drawn.delete(id);
    }
  }

  private add(id: string, layer: SVGElement, element: SVGElement): void {
    this.drawn.set(id, element);
    layer.append(element);
  }

  private pieceElement(piece: Piece): SVGElement {
    const path = s("path", { d: curve(piece.points), class: this.lit.has(piece.value) ? "edge lit" : "edge" });
    return path;
  }

  private boxElement(box: Box): SVGElement {
    const look = this.hooks.look(box.id);
    const kind = box.id.startsWith("b:") ? (box.open ? "open" : "block") : "node";
    const classes = ["box", kind, look.kind, look.mark ?? "", box.id === this.selected ? "selected" : ""];
    const { width, height } = box;
    const group = s("g", { class: classes.filter(Boolean).join(" "), transform: `translate(${box.x} ${box.y})`, "data-id": box.id });
    if (kind === "block") group.append(s("rect", { x: 3, y: 3, width, height, rx: 4, class: "stack" }));
    group.append(s("rect", { width, height, rx: 4, class: "face" }));
    if (kind === "node" && look.kind) group.append(s("rect", { width: 4, height, rx: 2, class: "edge-of-kind" }));
    const most = Math.floor((width - 22) / LETTER);
    group.append(s("text", { x: kind === "node" ? 12 : 10, y: kind === "node" ? 14.5 : 17, class: "title" }, fitted(look.title, kind === "open" ? most : most - 2)));
    group.append(s("title", {}, look.title));
    if (kind !== "open") group.append(s("text", { x: kind === "node" ? 12 : 10, y: kind === "node" ? 27.5 : 31, class: "sub" }, begun(look.sub, Math.floor((width - 18) / 5.6))));
    if (kind === "block") group.append(...strip(look.bars ?? [], width, height));
    if (kind !== "node") group.append(this.sign(box));
    if (look.mark) group.append(s("circle", { cx: width - 8, cy: height - 8, r: 3.5, class: "dot" }));
    return group;
  }

  private sign(box: Box): SVGElement {
    const [x, y] = [box.width - 14, 12];
    const lines = box.open ? `M${x - 4},${y}h8` : `M${x - 4},${y}h8M${x},${y - 4}v8`;
    return s("g", { class: "sign" }, s("rect", { x: x - 9, y: y - 9, width: 18, height: 18, rx: 3 }), s("path", { d: lines }));
  }

  // -- pointers ----------------------------------------------------------------------------

  private listen(): void {
    const { element } = this;
    let from: { x: number; y: number; moved: boolean } | null = null;
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = { x: event.clientX, y: event.clientY, moved: false };
    });
    element.addEventListener("pointermove", (event) => {
      if (!from) return;
      const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
      if (!from.moved && Math.hypot(dx, dy) < 4) return;
      if (!from.moved) element.setPointerCapture(event.pointerId);
      from = { x: event.clientX, y: event.clientY, moved: true };
      this.pan(dx, dy);
    });
    element.addEventListener("pointerup", (event) => {
      if (from && !from.moved) this.click(event);
      from = null;
    });
    element.addEventListener("pointercancel", () => (from = null));
    element.addEventListener("dblclick", (event) => {
      const hit = this.hit(event);
      if (hit && !hit.onSign && hit.box.id.startsWith("b:")) this.hooks.toggle(hit.box.id);
    });
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  private click(event: PointerEvent): void {
    const hit = this.hit(event);
    if (hit?.onSign) this.hooks.toggle(hit.box.id);
    else this.hooks.select(hit?.box.id ?? null);
  }

  /** The innermost box under the pointer, and whether it is on the sign that opens or closes it. */
  private hit(event: MouseEvent): { box: Box; onSign: boolean } | null {
    const { left, top } = this.element.getBoundingClientRect();
    const [x, y] = [(event.clientX - left - this.view.x) / this.view.scale, (event.clientY - top - this.view.y) / this.view.scale];
    const isIn = (box: Box) => x >= box.x && y >= box.y && x <= box.x + box.width && y <= box.y + box.height;
    const box = this.scene.boxes.filter(isIn).sort((a, b) => b.depth - a.depth)[0];
    return box ? { box, onSign: box.id.startsWith("b:") && !this.far && x >= box.x + box.width - 24 && y <= box.y + 22 } : null;
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    if (!event.ctrlKey && !event.metaKey) {
      const unit = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : 16;
      this.pan(-(event.shiftKey ? event.deltaY : event.deltaX) * unit, event.shiftKey ? 0 : -event.deltaY * unit);
      return;
    }
    const { left, top } = this.element.getBoundingClientRect();
    this.zoom(Math.exp(-event.deltaY * 0.004), { x: event.clientX - left, y: event.clientY - top });
  }
}

/** Populations of a block as a strip of thin bars on its lower edge. */
function strip(shares: number[], width: number, height: number): SVGElement[] {
  const step = Math.min(8, (width - 20) / Math.max(shares.length, 1));
  return shares.map((share, i) => {
    const tall = Math.max(1.5, share * 13);
    return s("rect", { x: 10 + i * step, y: height - 4 - tall, width: Math.max(step - 1.5, 0.8), height: tall, class: "bar" });
  });
}

/** A line through points that leaves and arrives along the ranks. */
export function curve(points: readonly number[]): string {
  let path = `M${fixed(points[0])},${fixed(points[1])}`;
  for (let i = 2; i < points.length; i += 2) {
    const [x0, y0, x1, y1] = [points[i - 2] ?? 0, points[i - 1] ?? 0, points[i] ?? 0, points[i + 1] ?? 0];
    const middle = (y0 + y1) / 2;
    path += x0 === x1 ? `V${fixed(y1)}` : `C${fixed(x0)},${fixed(middle)} ${fixed(x1)},${fixed(middle)} ${fixed(x1)},${fixed(y1)}`;
  }
  return path;
}

/** The same without bends. */
function straight(points: readonly number[]): string {
  return points.reduce((path, at, i) => `${path}${i === 0 ? "M" : i % 2 ? "," : "L"}${at.toFixed(0)}`, "");
}

function fixed(value: number | undefined): string {
  return (value ?? 0).toFixed(1);
}

function areaOf(piece: Piece): Area {
  const area = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
  piece.points.forEach((at, i) => {
    if (i % 2) [area.top, area.bottom] = [Math.min(area.top, at), Math.max(area.bottom, at)];
    else [area.left, area.right] = [Math.min(area.left, at), Math.max(area.right, at)];
  });
  return area;
}

function overlaps(a: Area, b: Area): boolean {
  return a.left <= b.right && b.left <= a.right && a.top <= b.bottom && b.top <= a.bottom;
}

function isInside(a: Area, b: Area): boolean {
  return a.left >= b.left && a.top >= b.top && a.right <= b.right && a.bottom <= b.bottom;
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}
