/** The network as `snncc inspect --html` writes it into the page (snncc/cli/page/document.py). */

/** A number; integers that JavaScript would round are written as text. */
export type Exact = number | string;
export type Range = [Exact, Exact];

export interface GraphNode {
  name: string;
  op: string;
  kind?: "neuron" | "layer" | "product" | "pool" | "sum" | "view";
  module?: string;
  source?: string;
  pass?: string;
  class?: string;
  /** Name of the node of the Program that it computes. */
  fact?: string;
  /** Indices of nodes. */
  inputs?: number[];
  /** Names of weights, see Stage.constants. */
  constants?: string[];
  type?: string;
  attributes?: Record<string, string>;
}

export interface Constant {
  type: string;
  values?: Exact[];
  min?: Exact;
  max?: Exact;
  mean?: number;
  std?: number;
}

export interface Stage {
  name: string;
  weights: "weights" | "statistics";
  nodes: GraphNode[];
  constants: Record<string, Constant>;
}

export interface Projection {
  source: string;
  reads: string;
  kind: string;
  payload: Exact;
  shape: number[];
  slices: number;
  shift: number;
  low: Exact | null;
  high: Exact | null;
  zeros: number | null;
  fan_in: number;
  histogram?: number[];
}

export interface Levels {
  channels: number;
  spike: number[];
  low: Exact[];
  median: Exact[];
  high: Exact[];
}

/** A node of the Program; which of the fields it has depends on its type. */
export interface Fact {
  type: string;
  name: string;
  module: string;
  shape: number[];
  source?: string;
  D?: number;
  norm?: number;
  rounding?: string;
  carry?: string;
  window?: number;
  neurons?: number;
  levels?: Levels;
  changed?: number | null;
  changed_teacher_forced?: number | null;
  saturated?: number | null;
  ties?: number | null;
  low?: Exact;
  high?: Exact;
  bits?: number;
  observed?: Range | null;
  observed_bits?: number | null;
  slice_left?: number | null;
  left?: Record<string, number>;
  bias?: Range;
  projections?: Projection[];
  [field: string]: unknown;
}

export interface Pass {
  name: string;
  rewrites: number;
  checked: number;
  worst: number;
}

export interface EngineVerdict {
  populations: number;
  spikes: number;
  elements: number;
  mismatched: number;
  differences: Record<string, unknown>[];
}

export interface Verify {
  samples: number;
  available: number;
  mismatched: number;
  engines: Record<string, EngineVerdict>;
  coverage: { populations: number; fired: number; silent: string[]; levels: Record<string, [number, number]> };
  layers?: { engine: string; samples: number; elements: number; mismatched: number };
}

export interface LayerReport {
  population: string;
  spikes?: number;
  trained_spikes?: number;
}

export interface Report {
  weight_bits?: number | string;
  samples?: number;
  compared?: number;
  agreement?: number | null;
  changed?: number | null;
  changed_teacher_forced?: number | null;
  saturated?: number | null;
  macs?: number;
  windows: number;
  latency_ticks: number;
  layers: LayerReport[];
  verify?: Verify | null;
  import_law?: { against: string; samples: number; values: number; elements: number; worst: number; margin: number } | null;
  [field: string]: unknown;
}

/** Activity of one population, as profiles and the file's own samples tell it. */
export interface Population {
  name: string;
  module: string;
  neurons: number;
  D: number;
  window: number;
  /** [timestep][tick]: share of its neurons that fire. */
  nsfr: number[][];
  mean_count: number;
  nonzero: number;
  saturated: number;
  histogram: number[];
  silent: number;
  spikes: number;
  sops?: number;
}

export type Way = "snn" | "dense" | "quantised" | "quantised_skipping";

/** Picojoules; null where an accounting tells none. */
export interface LayerEnergy extends Record<Way, number | null> {
  rate: number | null;
  break_even: number | null;
  break_even_skipping: number | null;
  /** The cheapest of the four ways. */
  least: Way | null;
}

export interface ProfileLayer {
  name: string;
  module: string;
  kind: string;
  sops: number;
  macs: number;
  acs: number;
  dense: number;
  /** By model; of some models there is none of single layers. */
  energy: Record<string, LayerEnergy>;
}

export interface EnergyModel extends LayerEnergy {
  description: string;
  /** By way; of an accounting only some. */
  formula: Record<string, string>;
  constants: Record<string, number | string>;
  sources: string[];
}

export interface Profile {
  name: string;
  engine: string;
  data: string;
  samples: number;
  clock_ticks: number;
  populations: Population[];
  layers: ProfileLayer[];
  spikes: number;
  sops: number;
  acs: number;
  macs: number;
  dense: number;
  events: { per_tick: number[]; mean: number; peak: number };
  energy: Record<string, EnergyModel>;
}

/** Spike counts of one sample, (T, ...shape), deflated and in base64. */
export interface CountMap {
  shape: number[];
  data: string;
}

export interface Sample {
  index: number;
  /** Integers of the source, (T or 1, ...shape). */
  input: CountMap;
  counts: Record<string, CountMap>;
}

export interface NetworkDocument {
  name: string;
  sha256: string;
  timesteps: number;
  ticks: number;
  tools: Record<string, string>;
  parts: Record<string, string[]>;
  outputs: { name: string; shape: number[]; kind: string; scale: number; source: string }[];
  report: Report;
  passes: Pass[];
  program: Fact[];
  stages: Stage[];
  reference: { samples: number; populations: Population[] } | null;
  profile: Profile | null;
  maps: { origin: "profile" | "reference"; available: number; samples: Sample[] } | null;
}
