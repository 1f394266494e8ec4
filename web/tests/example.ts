/** Small documents for tests. */
import type { Fact, GraphNode, NetworkDocument } from "../src/document";

/** A chain of nodes in these modules; `inputs` of a node are the one before it. */
export function graph(modules: string[]): GraphNode[] {
  return modules.map((module, index) => ({ name: `v${index}`, op: "Op", module, inputs: index ? [index - 1] : [] }));
}

export const HOSTILE = "<script>alert(1)</script>";
export const QUOTED = '"><img src=x onerror=alert(1)>';

const neuron: Fact = {
  type: "neuron", name: "fire:count", module: HOSTILE, shape: [2, 3, 3], source: "conv:v", D: 4, norm: 1, rounding: "half-even", carry: "none", window: 0, neurons: 18,
  changed: 0.25, changed_teacher_forced: 0.01, saturated: 0.1, ties: 0,
  levels: { channels: 2, spike: [1, 2], low: [1, 5], median: [2, 6], high: ["9007199254740993", "9007199254740995"] },
};
const potential: Fact = {
  type: "accumulator", name: "conv:v", module: QUOTED, shape: [2, 3, 3], low: -100, high: 100, bits: 8, observed: [-10, 20], observed_bits: 6, slice_left: 24, left: { event: 20, lava: -4 }, bias: [0, 1],
  projections: [{ source: "x", reads: "x", kind: "conv", payload: 255, shape: [2, 1, 3, 3], slices: 1, shift: 0, low: -3, high: 3, zeros: 0.5, fan_in: 9, histogram: [1, 2, 3] }],
};

/** One layer and one population, whose modules have names that would be markup. */
export function example(): NetworkDocument {
  const nodes: GraphNode[] = [
    { name: "x", op: "input", type: "u8[N,1,3,3]", fact: "x" },
    { name: "conv/acc0", op: "QConv", kind: "layer", module: QUOTED, source: "models.py:1", pass: "quantise-weights", inputs: [0], constants: ["w"], attributes: { group: "1" } },
    { name: "conv:v", op: "SliceSum", kind: "sum", module: QUOTED, pass: "quantise-weights", inputs: [1], fact: "conv:v" },
    { name: "fire:count", op: "FireCount", kind: "neuron", module: HOSTILE, pass: "quantise-weights", inputs: [2], fact: "fire:count" },
    { name: "fire:count", op: "output", inputs: [3] },
  ];
  const before: GraphNode[] = [
    { name: "x", op: "input", type: "u8[N,1,3,3]", fact: "x" },
    { name: "conv", op: "Conv", kind: "layer", module: QUOTED, inputs: [0], fact: "conv:v" },
    { name: "fire:count", op: "IntegerFire", kind: "neuron", module: HOSTILE, inputs: [1], fact: "fire:count" },
  ];
  return {
    name: HOSTILE, sha256: "0".repeat(64), timesteps: 1, ticks: 4, tools: { snncc: "0" }, parts: { host: [QUOTED] }, outputs: [],
    report: { windows: 1, latency_ticks: 4, layers: [{ population: "fire:count", spikes: 7, trained_spikes: 8 }], changed: 0.25, compared: 18, agreement: 1, samples: 1, verify: {
      samples: 2, available: 2, mismatched: 0, engines: { event: { populations: 1, spikes: 7, elements: 36, mismatched: 0, differences: [] } },
      coverage: { populations: 1, fired: 1, silent: [], levels: { "fire:count": [3, 4] } } } },
    passes: [{ name: "quantise-weights", rewrites: 1, checked: 0, worst: 0 }],
    program: [{ type: "source", name: "x", module: "", shape: [1, 3, 3] }, potential, neuron],
    stages: [{ name: "integer", weights: "statistics", nodes: before, constants: {} }, { name: "quantised", weights: "weights", nodes, constants: { w: { type: "i8[2,1,3,3]", min: -3, max: 3, mean: 0, std: 1 } } }],
    reference: { samples: 2, populations: [{ name: "fire:count", module: HOSTILE, neurons: 18, D: 4, window: 0, nsfr: [[0.5, 0.25, 0.1, 0]], mean_count: 0.85, nonzero: 0.5, saturated: 0, histogram: [18, 9, 5, 4, 0], silent: 3, spikes: 15.3 }] },
    profile: null, maps: null,
  };
}
