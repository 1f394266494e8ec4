/** Tall arrangements in columns, as a newspaper has them: what is long is read at once. */
import type { Arrangement, Placed } from "./layout";

/** Lower ones stay as they are. */
const TALL = 900;
/** Width by height that is aimed at. */
const RATIO = 1.25;
const GUTTER = 40;
const LANE = 6;
/** So many values may go from one column to another at a cut. */
const MOST_CROSSING = 4;

interface Row {
  top: number;
  bottom: number;
}

interface Column extends Row {
  left: number;
  right: number;
}

/** The arrangement, cut where few edges are cut, its parts side by side from left to right. */
export function inColumns(found: Arrangement): Arrangement {
  const count = Math.round(Math.sqrt((RATIO * found.height) / (found.width || 1)));
  if (found.height < TALL || count < 2) return found;
  const cuts = chosenCuts(found, found.height / count);
  if (!cuts.length) return found;
  return moved(found, columnsOf(found, cuts));
}

/** Boxes that are beside each other, as rows from the top down. */
export function rowsOf(places: Iterable<Placed>): Row[] {
  const rows: Row[] = [];
  for (const { y, height } of [...places].sort((a, b) => a.y - b.y)) {
    const last = rows.at(-1);
    if (last && y < last.bottom) last.bottom = Math.max(last.bottom, y + height);
    else rows.push({ top: y, bottom: y + height });
  }
  return rows;
}

/** Heights between rows at which columns of about `target` end. */
function chosenCuts(found: Arrangement, target: number): number[] {
  const rows = rowsOf(found.places.values());
  const cuts: number[] = [];
  let start = 0;
  rows.slice(0, -1).forEach((row, i) => {
    const next = rows[i + 1] ?? row;
    const cut = (row.bottom + next.top) / 2;
    // The next row would make this column longer by more than it is short now.
    const isFull = cut - start >= target || next.bottom - start - target > target - (cut - start);
    if (!isFull || crossing(found, cut) > MOST_CROSSING) return;
    cuts.push(cut);
    start = cut;
  });
  return cuts;
}

function crossing(found: Arrangement, y: number): number {
  return new Set(found.routes.filter(({ points }) => passes(points, y)).map(({ value }) => value)).size;
}

/** Whether a route has one end above a height and the other below it. */
function passes(points: number[], y: number): boolean {
  const [start, end] = [points[1] ?? 0, points.at(-1) ?? 0];
  return Math.min(start, end) < y && Math.max(start, end) > y;
}

/** The same way back. */
function back(points: number[]): number[] {
  const found: number[] = [];
  for (let i = points.length - 2; i >= 0; i -= 2) found.push(points[i] ?? 0, points[i + 1] ?? 0);
  return found;
}

function columnsOf(found: Arrangement, cuts: number[]): Column[] {
  const ends = [...cuts, Infinity];
  return ends.map((bottom, i) => {
    const top = i ? (cuts[i - 1] ?? 0) : -Infinity;
    const boxes = [...found.places.values()].filter(({ y }) => y >= top && y < bottom);
    const xs = found.routes.flatMap(({ points }) => [
      ...points.filter((_, at) => at % 2 === 0 && within(points[at + 1] ?? 0, top, bottom)),
      ...[top, bottom].filter((cut) => passes(points, cut)).map((cut) => crossingAt(points, cut)),
    ]);
    return {
      top, bottom,
      left: Math.min(...boxes.map(({ x }) => x), ...xs),
      right: Math.max(...boxes.map(({ x, width }) => x + width), ...xs),
    };
  });
}

function within(y: number, top: number, bottom: number): boolean {
  return y >= top && y < bottom;
}

/** Where each column is moved to. */
interface Shift {
  dx: number;
  dy: number;
  /** Where the lanes to the next column are. */
  gutter: number;
  bottom: number;
}

function moved(found: Arrangement, columns: Column[]): Arrangement {
  const head = LANE * (MOST_CROSSING + 1);
  const shifts: Shift[] = [];
  let x = 0;
  for (const { top, bottom, left, right } of columns) {
    const [first, last] = [Math.max(top, 0), Math.min(bottom, found.height)];
    shifts.push({ dx: x - left, dy: head - first, gutter: x + right - left + 8, bottom: head + last - first });
    x += right - left + GUTTER;
  }
  const height = Math.max(...shifts.map(({ bottom }) => bottom)) + head;
  const at = (y: number) => Math.max(columns.findIndex(({ top, bottom }) => within(y, top, bottom)), 0);
  const places = new Map([...found.places].map(([id, place]) => {
    const { dx, dy } = shiftAt(shifts, at(place.y));
    return [id, { ...place, x: place.x + dx, y: place.y + dy }];
  }));
  const lanes = new Map<number, number>();
  const routes = found.routes.map((route) => {
    const crosses = at(route.points[1] ?? 0) !== at(route.points.at(-1) ?? 0);
    if (crosses && !lanes.has(route.value)) lanes.set(route.value, lanes.size % MOST_CROSSING);
    return { ...route, points: led(route.points, columns, shifts, at, (lanes.get(route.value) ?? 0) * LANE) };
  });
  const [first, last] = [shiftAt(shifts, 0), shiftAt(shifts, shifts.length - 1)];
  const ports = (known: Map<number, number>, { dx }: Shift) => new Map([...known].map(([value, port]) => [value, port + dx]));
  return { places, routes, ins: ports(found.ins, first), outs: ports(found.outs, last), width: x - GUTTER, height };
}

function shiftAt(shifts: Shift[], place: number): Shift {
  return shifts[place] ?? { dx: 0, dy: 0, gutter: 0, bottom: 0 };
}

/** A route in its column; into another one it goes below the first, up the gutter, and in from above. */
function led(points: number[], columns: Column[], shifts: Shift[], at: (y: number) => number, lane: number): number[] {
  const [from, to] = [at(points[1] ?? 0), at(points.at(-1) ?? 0)];
  const shifted = (some: number[], { dx, dy }: Shift) => some.map((value, i) => value + (i % 2 ? dy : dx));
  const start = shiftAt(shifts, from);
  if (from === to) return shifted(points, start);
  if (from > to) return back(led(back(points), columns, shifts, at, lane)); // of modules that call each other
  const end = shiftAt(shifts, to);
  const [cutOut, cutIn] = [columns[from]?.bottom ?? 0, columns[to]?.top ?? 0];
  const before = shifted([...points.filter((_, i) => (points[i | 1] ?? 0) < cutOut), crossingAt(points, cutOut), cutOut], start);
  const after = shifted([crossingAt(points, cutIn), cutIn, ...points.filter((_, i) => (points[i | 1] ?? 0) > cutIn)], end);
  const below = start.bottom + 4 + lane;
  const above = 4 + lane;
  const gutter = start.gutter + lane;
  return [...before, before.at(-2) ?? 0, below, gutter, below, gutter, above, after[0] ?? 0, above, ...after];
}

/** The x at which a route is at a height. */
function crossingAt(points: number[], y: number): number {
  for (let i = 3; i < points.length; i += 2) {
    const [x0, y0, x1, y1] = [points[i - 3] ?? 0, points[i - 2] ?? 0, points[i - 1] ?? 0, points[i] ?? 0];
    if (y0 <= y && y1 >= y) return y1 === y0 ? x1 : x0 + ((x1 - x0) * (y - y0)) / (y1 - y0);
  }
  return points[0] ?? 0;
}
