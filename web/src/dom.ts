/** Elements. Text is only ever set as text: names in a network are anybody's. */

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | undefined>;

/** An HTML element; `class` and all other attributes by name, true for those without a value. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): SVGElementTagNameMap[K] {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled<E extends Element>(element: E, attributes: Attributes, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button that says what it does. */
export function button(label: string, act: () => void, attributes: Attributes = {}): HTMLButtonElement {
  const made = h("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", act);
  return made;
}

/** Names and values, as a description list; values without anything are left out. */
export function pairs(rows: [string, Child][]): HTMLElement {
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  return h("dl", { class: "pairs" }, ...shown.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/** A part of the details of a box, whose name is a heading above it. */
export function section(title: string, ...children: Child[]): HTMLElement {
  return h("section", {}, h("h3", {}, title), ...children);
}

/** A part of a view. */
export function part(title: string, ...children: Child[]): HTMLElement {
  return h("section", {}, h("h2", {}, title), ...children);
}

export interface Column<Row> {
  head: string;
  /** What the heading means. */
  title?: string;
  /** The cell; a number is what the column is sorted by. */
  cell: (row: Row) => Child;
  by?: (row: Row) => number | string | null | undefined;
  number?: boolean;
}

/** A table whose headings sort it; `pick` is called with a row that is chosen. */
export function table<Row>(caption: string, columns: Column<Row>[], rows: readonly Row[], pick?: (row: Row) => void): HTMLElement {
  const body = h("tbody");
  const draw = (ordered: readonly Row[]) => body.replaceChildren(...ordered.map((row) => rowOf(columns, row, pick)));
  const heads = columns.map((column) => headOf(column, (down) => {
    for (const other of heads) if (other.textContent !== column.head) other.removeAttribute("aria-sort");
    draw(sorted(rows, column, down));
  }));
  draw(rows);
  const made = h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, ...heads)), body);
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, made);
}

function headOf<Row>(column: Column<Row>, sort: (down: boolean) => void): HTMLElement {
  const head = h("th", { scope: "col", class: column.number ? "number" : "", title: column.title });
  if (!column.by) {
    head.append(column.head);
    return head;
  }
  head.append(button(column.head, () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    sort(down);
  }));
  return head;
}

function sorted<Row>(rows: readonly Row[], column: Column<Row>, down: boolean): Row[] {
  const by = column.by ?? (() => 0);
  const compared = (a: Row, b: Row) => {
    const [x, y] = [by(a) ?? -Infinity, by(b) ?? -Infinity];
    return typeof x === "string" || typeof y === "string" ? String(x).localeCompare(String(y), undefined, { numeric: true }) : x - y;
  };
  return [...rows].sort((a, b) => (down ? compared(b, a) : compared(a, b)));
}

function rowOf<Row>(columns: Column<Row>[], row: Row, pick?: (row: Row) => void): HTMLElement {
  const cells = columns.map((column, i) => {
    const content = column.cell(row);
    if (i > 0) return h("td", { class: column.number ? "number" : "" }, content);
    const name = pick && typeof content === "string" ? button(content, () => pick(row), { class: "link" }) : content;
    return h("th", { scope: "row" }, name);
  });
  return h("tr", {}, ...cells);
}
