import { expect, test } from "vitest";
import { Network } from "../src/network";
import { search } from "../src/search";
import { HOSTILE, QUOTED, example } from "./example";

const network = new Network(example());
const graph = network.stage("quantised");

test("what a stage changed is told by names: new, changed, gone", () => {
  const changes = network.changes("quantised");
  expect(changes?.nodes).toEqual(["same", "new", "new", "changed", "changed"]);
  expect(changes?.gone.map(({ name }) => name)).toEqual(["conv"]);
  expect(network.changes("integer")).toBeNull();
});

test("a path is a block, a name a node, a module its node, a beginning the block in it", () => {
  expect(graph.find(QUOTED)).toBe(`b:${QUOTED}`);
  expect(graph.find(HOSTILE)).toBe("n:3");
  expect(graph.find("conv/acc0")).toBe("n:1");
  expect(graph.find("nowhere")).toBeNull();
  expect(graph.find("")).toBeNull();
});

test("weights are found from a layer's node, along the graph to the potential that they feed", () => {
  const found = network.projectionsOf(graph, 1);
  expect(found.map(({ projection, into }) => [projection.fan_in, into.name])).toEqual([[9, "conv:v"]]);
});

test("facts of a box are those of its nodes and of its module", () => {
  expect(network.factsOf(graph, `b:${QUOTED}`).map(({ name }) => name)).toEqual(["conv:v"]);
  expect(network.factsOf(graph, "n:3").map(({ name }) => name)).toEqual(["fire:count"]);
});

test("search puts whole names before ends, ends before parts, and finds operators", () => {
  expect(search(graph, "conv:v")[0]?.id).toBe("n:2");
  expect(search(graph, "SliceSum").map(({ id }) => id)).toContain("n:2");
  expect(search(graph, "<script>").map(({ text }) => text)).toEqual(["fire:count"]); // by its module
  expect(search(graph, "  ")).toEqual([]);
  expect(search(graph, "zzz")).toEqual([]);
});
