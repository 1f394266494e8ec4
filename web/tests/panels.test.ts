// @vitest-environment jsdom
import { expect, test } from "vitest";
import { details } from "../src/details";
import { h } from "../src/dom";
import { Network } from "../src/network";
import { Outline } from "../src/outline";
import { energyPanel, passesPanel, populationsPanel, standing, verificationPanel } from "../src/panels";
import { HOSTILE, QUOTED, example } from "./example";

const network = new Network(example());
const graph = network.stage("quantised");
const nothing = () => undefined;
const hooks = { population: nothing, pass: nothing };

function shown(): HTMLElement {
  const boxes = ["n:0", "n:1", "n:2", "n:3", "n:4", `b:${QUOTED}`];
  const panels = boxes.flatMap((id) => details(network, graph, id, { select: nothing, go: nothing, maps: nothing, hasMaps: true }));
  const outline = new Outline({ label: (id) => ({ title: id, note: id, kind: "" }), isOpen: () => true, select: nothing, toggle: nothing });
  outline.show(graph.root, null);
  return h("div", {}, ...panels, outline.element, ...populationsPanel(network, hooks), ...passesPanel(network, hooks), ...verificationPanel(network, hooks), ...energyPanel(network, hooks, "", nothing));
}

test("names that would be markup are text everywhere", () => {
  const all = shown();
  expect(all.textContent).toContain(HOSTILE);
  expect(all.textContent).toContain(QUOTED);
  expect(all.querySelectorAll("script, img")).toHaveLength(0);
});

test("a population tells its levels with all digits, its verification and its activity", () => {
  const [panel] = [h("div", {}, ...details(network, graph, "n:3", { select: nothing, go: nothing, maps: nothing, hasMaps: false }))];
  expect(panel.textContent).toContain("no spike differs, counts up to 3 of 4");
  expect(panel.textContent).toContain("3 of 18");
  expect(panel.querySelectorAll(".levels rect")).toHaveLength(4);
});

test("a potential tells what is left of it, and who lacks bits", () => {
  const panel = h("div", {}, ...details(network, graph, "n:2", { select: nothing, go: nothing, maps: nothing, hasMaps: false }));
  expect(panel.textContent).toContain("20; lava lacks 4");
  expect(panel.querySelectorAll(".histogram rect")).toHaveLength(3);
});

test("tables are sorted by their headings, down and then up", () => {
  const panel = h("div", {}, ...verificationPanel(network, hooks));
  const head = [...panel.querySelectorAll("th")].find((cell) => cell.textContent === "changed");
  const press = () => head?.querySelector("button")?.click();
  press();
  expect(head?.getAttribute("aria-sort")).toBe("descending");
  press();
  expect(head?.getAttribute("aria-sort")).toBe("ascending");
});

test("without a profile the energy view says how to get one", () => {
  expect(energyPanel(network, hooks, "", nothing)[0]?.textContent).toContain("snncc profile");
});

test("where the quantised ANN costs less, that is said", () => {
  const model = { snn: 3, dense: 8, quantised: 2, quantised_skipping: 4, rate: 0.2, break_even: 0.06, break_even_skipping: null };
  expect(standing({ ...model, least: "quantised" })).toContain("Least costs the quantised ANN, dense: the spiking network takes 1.5 times as much");
  expect(standing({ ...model, snn: 1, least: "snn" })).toContain("The spiking network costs least");
  expect(standing({ ...model, least: null })).toBe("");
});

test("arrow keys walk the outline", () => {
  const moved: string[] = [];
  const outline = new Outline({ label: (id) => ({ title: id, note: "", kind: "" }), isOpen: () => false, select: (id) => moved.push(`select ${id}`), toggle: (path, open) => moved.push(`${open ? "open" : "close"} ${path}`) });
  document.body.append(outline.element);
  outline.show(graph.root, null);
  const press = (key: string) => document.activeElement?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  outline.element.querySelector<HTMLElement>("[role=treeitem]")?.focus();
  press("ArrowDown");
  expect((document.activeElement as HTMLElement).dataset.id).toBe(`b:${QUOTED}`);
  outline.show(graph.root, null);
  expect((document.activeElement as HTMLElement).dataset.id).toBe(`b:${QUOTED}`); // drawn anew, focus stays
  press("ArrowRight");
  press("Enter");
  expect(moved).toEqual([`open ${QUOTED}`, `select b:${QUOTED}`]);
});
