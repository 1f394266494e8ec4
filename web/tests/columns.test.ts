import { expect, test } from "vitest";
import { inColumns, rowsOf } from "../src/columns";
import type { Arrangement } from "../src/layout";

/** A chain of boxes, one below the other, with a shortcut along its left side. */
function tower(boxes: number): Arrangement {
  const places = new Map(Array.from({ length: boxes }, (_, i) => [String(i), { x: 30, y: i * 80, width: 200, height: 50 }]));
  const steps = Array.from({ length: boxes - 1 }, (_, i) => ({ value: i, from: String(i), to: String(i + 1), points: [130, i * 80 + 50, 130, i * 80 + 80] }));
  const shortcut = { value: 0, from: "0", to: String(boxes - 1), points: [80, 50, 5, 90, 5, (boxes - 1) * 80 - 10, 80, (boxes - 1) * 80] };
  const [ins, outs] = [new Map([[90, 130]]), new Map([[91, 130]])];
  return { places, routes: [...steps, shortcut], ins, outs, width: 230, height: (boxes - 1) * 80 + 50 };
}

test("what is not tall stays as it is", () => {
  const low = tower(8);
  expect(inColumns(low)).toBe(low);
});

test("columns have about the height that is aimed at, and no box is lost or covered", () => {
  const made = inColumns(tower(40));
  const boxes = [...made.places.values()];
  expect(boxes).toHaveLength(40);
  expect(made.height).toBeLessThan(tower(40).height / 2);
  expect(made.width / made.height).toBeGreaterThan(0.7);
  expect(made.width / made.height).toBeLessThan(2);
  for (const a of boxes) for (const b of boxes) {
    if (a !== b) expect(a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height).toBe(false);
  }
});

test("every route still begins at its box and ends at the other, within the arrangement", () => {
  const made = inColumns(tower(40));
  for (const { from, to, points } of made.routes) {
    const [start, end] = [made.places.get(from), made.places.get(to)];
    expect(points[1]).toBeCloseTo((start?.y ?? 0) + 50);
    expect(points.at(-1)).toBeCloseTo(end?.y ?? 0);
    const xs = points.filter((_, i) => i % 2 === 0);
    const ys = points.filter((_, i) => i % 2 === 1);
    expect(Math.min(...xs, ...ys)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...xs)).toBeLessThanOrEqual(made.width);
    expect(Math.max(...ys)).toBeLessThanOrEqual(made.height);
  }
});

test("values come in above the first column and go out below the last", () => {
  const made = inColumns(tower(40));
  const [first, last] = [made.places.get("0"), made.places.get("39")];
  expect(made.ins.get(90)).toBe((first?.x ?? 0) + 100);
  expect(made.outs.get(91)).toBe((last?.x ?? 0) + 100);
});

test("boxes beside each other are one row", () => {
  const rows = rowsOf([{ x: 0, y: 0, width: 1, height: 50 }, { x: 9, y: 30, width: 1, height: 50 }, { x: 0, y: 90, width: 1, height: 5 }]);
  expect(rows).toEqual([{ top: 0, bottom: 80 }, { top: 90, bottom: 95 }]);
});
