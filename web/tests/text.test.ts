import { expect, test } from "vitest";
import { energy, fitted, integer, percent, plural, range, short } from "../src/format";
import { linkTo, parseLink } from "../src/links";

test("integers beyond JavaScript's are written with all their digits", () => {
  expect(integer("9007199254740993")).toBe("9,007,199,254,740,993");
  expect(integer(-12345)).toBe("-12,345");
  expect(range("-4611686018427387904", 5)).toBe("-4,611,686,018,427,387,904 … 5");
  expect(range(5, "5")).toBe("5");
});

test.each([[0, "0"], [0.0000123, "1.2e-5"], [0.3239, "0.324"], [999.6, "1 k"], [1567000, "1.57 M"], [12_345_678_901, "12.3 G"]])("%f is %s", (value, text) => {
  expect(short(value).replace("\u202f", " ")).toBe(text);
});

test.each([[null, "–"], [0, "0 %"], [1, "100 %"], [0.9999, "99.99 %"], [0.984, "98.4 %"], [0.0000249, "0.0025 %"]])("%s is %s", (share, text) => {
  expect(percent(share).replace("\u202f", " ")).toBe(text);
});

test.each([[null, "–"], [0, "0"], [136e6, "136 µJ"], [7.4635e9, "7.46 mJ"], [0.25, "0.25 pJ"]])("%s pJ are %s", (value, text) => {
  expect(energy(value).replace("\u202f", " ")).toBe(text);
});

test("plurals, and the ends of long paths", () => {
  expect([plural(1, "sample"), plural(2, "class")]).toEqual(["1 sample", "2 classes"]);
  expect(fitted("block1.Conv.pwconv1", 9)).toBe("….pwconv1");
  expect(fitted("short", 9)).toBe("short");
});

test.each(["block3.0.attn", "mean/pool:sum", "a b?stage=x&y#z", "<script>alert(1)</script>", "50%", "ü/ö"])("a link to %s leads there", (path) => {
  const link = { path, stage: "integer", view: "energy" };
  expect(parseLink(linkTo(link))).toEqual(link);
});

test("links are short where stage and view are the usual ones, and broken ones are read as they stand", () => {
  expect(linkTo({ path: "block3.0.attn", stage: "", view: "" })).toBe("#block3.0.attn");
  expect(parseLink("#50%")).toEqual({ path: "50%", stage: "", view: "" });
});
