/** Builds the page: one HTML file with its script, its style and the notices of what it contains. */
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const OUT = join(HERE, "..", "snncc", "cli", "page", "page.html");
const BUNDLED = ["@dagrejs/dagre", "@dagrejs/graphlib"];

/** What the built file depends on, as tests/cli/test_page.py lists it too. */
function sources() {
  const own = ["build.mjs", "index.html", "package-lock.json", "package.json", "tsconfig.json"];
  const code = readdirSync(join(HERE, "src"));
  return [...own, ...code.map((name) => `src/${name}`)].sort();
}

/** One hash of the names and bytes of all sources. */
function sourcesHash() {
  const hash = createHash("sha256");
  for (const name of sources()) hash.update(`${name}\0`).update(readFileSync(join(HERE, name))).update("\0");
  return hash.digest("hex");
}

/** As a Content-Security-Policy names what may run: what has this hash, and nothing else. */
function allowed(text) {
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}

/** The licences of what is bundled, which each asks to be kept with it. */
function notices() {
  const each = BUNDLED.map((name) => {
    const folder = join(HERE, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    return `${name} ${version} (${license})\n\n${readFileSync(join(folder, "LICENSE"), "utf8").trim()}`;
  });
  return `THIRD-PARTY NOTICES\n\nThis file contains:\n\n${each.join("\n\n----\n\n")}\n`;
}

async function bundled(entry) {
  const made = await build({
    entryPoints: [join(HERE, "src", entry)],
    bundle: true,
    minify: true,
    write: false,
    target: "es2022",
    format: "iife",
    charset: "ascii",
    legalComments: "none",
  });
  return made.outputFiles[0].text.trim().replaceAll("</script", "<\\/script");
}

const script = await bundled("main.ts");
const style = await bundled("style.css");
const policy = [
  "default-src 'none'",
  `script-src ${allowed(script)}`,
  `style-src ${allowed(style)}`,
  "worker-src blob:",
  "img-src data:",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

const parts = {
  "@@notices@@": notices(),
  "@@sources@@": sourcesHash(),
  "@@policy@@": policy,
  "@@style@@": style,
  "@@script@@": script,
};
let page = readFileSync(join(HERE, "index.html"), "utf8");
for (const [place, text] of Object.entries(parts)) page = page.replace(place, () => text);
writeFileSync(OUT, page);
console.log(`${OUT}: ${Buffer.byteLength(page)} bytes, sources ${parts["@@sources@@"].slice(0, 12)}`);
