/** The outline: blocks and nodes as a tree that keyboards and screen readers can walk. */
import { type Block, itemsOf } from "./blocks";
import { h } from "./dom";

export interface OutlineHooks {
  /** Title and a word on its kind or size. */
  label: (id: string) => { title: string; note: string; kind: string };
  isOpen: (path: string) => boolean;
  select: (id: string) => void;
  toggle: (path: string, open: boolean) => void;
}

export class Outline {
  readonly element = h("ul", { class: "tree", role: "tree", "aria-label": "Outline" });
  private selected: string | null = null;

  constructor(private readonly hooks: OutlineHooks) {
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("click", (event) => this.click(event));
  }

  show(root: Block, selected: string | null): void {
    const focused = document.activeElement instanceof HTMLElement && this.element.contains(document.activeElement) ? (document.activeElement.dataset.id ?? null) : null;
    this.selected = selected;
    this.element.replaceChildren(...this.rows(root, 1));
    const stop = this.rowOf(focused) ?? this.rowOf(selected) ?? this.element.querySelector<HTMLElement>("[role=treeitem]");
    if (stop) stop.tabIndex = 0;
    if (focused !== null) stop?.focus();
    this.rowOf(selected)?.scrollIntoView({ block: "nearest" });
  }

  private rows(block: Block, level: number): HTMLElement[] {
    return itemsOf(block).flatMap((item) => {
      if (!item.block) return [this.row(`n:${item.node}`, level)];
      const { block: inner } = item;
      const row = this.row(`b:${inner.path}`, level, this.hooks.isOpen(inner.path));
      return this.hooks.isOpen(inner.path) ? [row, ...this.rows(inner, level + 1)] : [row];
    });
  }

  private row(id: string, level: number, open?: boolean): HTMLElement {
    const { title, note, kind } = this.hooks.label(id);
    return h("li", {
      role: "treeitem", tabindex: -1, "data-id": id, class: `level-${Math.min(level, 12)} ${kind}`, "aria-level": level,
      "aria-expanded": open === undefined ? undefined : String(open), "aria-selected": String(id === this.selected), title,
    }, h("span", { class: "twist", "aria-hidden": "true" }, open === undefined ? "" : open ? "▾" : "▸"), h("span", { class: "name" }, title), h("span", { class: "note" }, note));
  }

  private rowOf(id: string | null): HTMLElement | null {
    if (id === null) return null;
    return [...this.element.children].find((row): row is HTMLElement => row instanceof HTMLElement && row.dataset.id === id) ?? null;
  }

  private click(event: MouseEvent): void {
    const row = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-id]") : null;
    const id = row?.dataset.id;
    if (!id) return;
    const onTwist = event.target instanceof Element && event.target.classList.contains("twist");
    if (onTwist && id.startsWith("b:")) this.hooks.toggle(id.slice(2), row.getAttribute("aria-expanded") !== "true");
    else this.hooks.select(id);
  }

  private key(event: KeyboardEvent): void {
    const row = document.activeElement;
    if (!(row instanceof HTMLElement) || !row.dataset.id || event.ctrlKey || event.metaKey || event.altKey) return;
    const rows = [...this.element.children] as HTMLElement[];
    const at = rows.indexOf(row);
    const id = row.dataset.id;
    const open = row.getAttribute("aria-expanded");
    const moves: Record<string, () => void> = {
      ArrowDown: () => this.focus(rows[at + 1]),
      ArrowUp: () => this.focus(rows[at - 1]),
      Home: () => this.focus(rows[0]),
      End: () => this.focus(rows.at(-1)),
      ArrowRight: () => (open === "false" ? this.hooks.toggle(id.slice(2), true) : this.focus(rows[at + 1])),
      ArrowLeft: () => (open === "true" ? this.hooks.toggle(id.slice(2), false) : this.focus(outer(rows, at))),
      Enter: () => this.hooks.select(id),
      " ": () => this.hooks.select(id),
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    event.stopPropagation();
    move();
  }

  private focus(row: HTMLElement | undefined): void {
    if (!row) return;
    for (const other of this.element.querySelectorAll<HTMLElement>("[tabindex='0']")) other.tabIndex = -1;
    row.tabIndex = 0;
    row.focus();
  }
}

function outer(rows: HTMLElement[], at: number): HTMLElement | undefined {
  const level = Number(rows[at]?.getAttribute("aria-level"));
  return rows.slice(0, at).reverse().find((row) => Number(row.getAttribute("aria-level")) < level);
}
