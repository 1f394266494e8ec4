/** How numbers are written. */
import type { Exact } from "./document";

const THIN = " "; // between a number and its unit; never broken

/** An integer with its thousands apart, exactly. */
export function integer(value: Exact): string {
  return typeof value === "string" ? BigInt(value).toLocaleString("en") : Math.round(value).toLocaleString("en");
}

/** Three digits and a prefix: 1.57 M. */
export function short(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3) return value.toExponential(1);
  if (size < 999.5) return String(Number(value.toPrecision(3)));
  const [scale, prefix] = ([[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]] as const).find(([least]) => size >= least * 0.9995) ?? [1e3, "k"];
  return `${Number((value / scale).toPrecision(3))}${THIN}${prefix}`;
}

/** A share in percent; what is small keeps two digits. */
export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined) return "–";
  const value = share * 100;
  if (value === 0 || value >= 99.95) return `${Number(value.toPrecision(5))}${THIN}%`;
  return value >= 1 ? `${value.toFixed(1)}${THIN}%` : `${Number(value.toPrecision(2))}${THIN}%`;
}

/** Picojoules in the unit that suits. */
export function energy(picojoules: number | null | undefined): string {
  if (picojoules === null || picojoules === undefined) return "–";
  if (picojoules === 0) return "0";
  const units = [[1e12, "J"], [1e9, "mJ"], [1e6, "µJ"], [1e3, "nJ"], [1, "pJ"]] as const;
  const [scale, unit] = units.find(([least]) => picojoules >= least) ?? [1, "pJ"];
  return `${Number((picojoules / scale).toPrecision(3))}${THIN}${unit}`;
}

export function shape(sizes: readonly number[]): string {
  return sizes.join("×");
}

/** A range of exact integers; one number where it is one. */
export function range(low: Exact, high: Exact): string {
  return String(low) === String(high) ? integer(low) : `${integer(low)} … ${integer(high)}`;
}

export function real(value: Exact): string {
  const number = Number(value);
  return Number.isInteger(number) ? integer(value) : String(Number(number.toPrecision(4)));
}

export function plural(count: number, what: string): string {
  return `${integer(count)} ${what}${count === 1 ? "" : what.endsWith("s") ? "es" : "s"}`;
}

/** At most so many characters: the end of a path says more than its beginning. */
export function fitted(text: string, most: number): string {
  return text.length <= most ? text : `…${text.slice(text.length - most + 1)}`;
}

/** At most so many characters of a sentence: its beginning. */
export function begun(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}
