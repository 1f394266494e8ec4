/** The search field and its list. */
import { h } from "./dom";
import type { StageGraph } from "./network";
import { type Hit, search } from "./search";

export class SearchBox {
  readonly element: HTMLElement;
  private readonly input = h("input", {
    type: "search", id: "search", placeholder: "Search  /", autocomplete: "off", spellcheck: "false", role: "combobox",
    "aria-label": "Search blocks, nodes and operators", "aria-controls": "hits", "aria-expanded": "false", "aria-autocomplete": "list",
  });
  private readonly list = h("ul", { id: "hits", role: "listbox", "aria-label": "Found", hidden: true });
  private hits: Hit[] = [];
  private at = 0;

  constructor(private readonly graph: () => StageGraph, private readonly choose: (id: string) => void) {
    this.element = h("div", { class: "search", role: "search" }, this.input, this.list);
    this.input.addEventListener("input", () => this.find());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("blur", () => this.close());
    // Before the field loses focus, which would close the list.
    this.list.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const row = event.target instanceof Element ? event.target.closest("[role=option]") : null;
      if (row) this.take([...this.list.children].indexOf(row));
    });
  }

  focus(): void {
    this.input.focus();
    this.input.select();
  }

  private find(): void {
    this.hits = search(this.graph(), this.input.value);
    this.at = 0;
    this.draw();
  }

  private draw(): void {
    this.list.replaceChildren(...this.hits.map((hit, i) => h("li", { role: "option", id: `hit-${i}`, "aria-selected": String(i === this.at) },
      h("span", { class: "name", title: hit.text }, hit.text), h("span", { class: "note" }, hit.note))));
    if (this.input.value.trim() && !this.hits.length) this.list.append(h("li", { class: "none" }, "nothing found"));
    const open = this.list.childElementCount > 0;
    this.list.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
    this.input.setAttribute("aria-activedescendant", this.hits.length ? `hit-${this.at}` : "");
    this.list.children[this.at]?.scrollIntoView({ block: "nearest" });
  }

  private key(event: KeyboardEvent): void {
    const moves: Record<string, () => void> = {
      ArrowDown: () => this.move(1),
      ArrowUp: () => this.move(-1),
      Enter: () => this.take(this.at),
      Escape: () => this.leave(),
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    event.stopPropagation();
    move();
  }

  private move(step: number): void {
    this.at = (this.at + step + this.hits.length) % (this.hits.length || 1);
    this.draw();
  }

  private take(place: number): void {
    const hit = this.hits[place];
    if (!hit) return;
    this.choose(hit.id);
    this.leave();
  }

  private leave(): void {
    this.close();
    this.input.blur();
    document.querySelector<HTMLElement>(".canvas")?.focus();
  }

  private close(): void {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
  }
}
