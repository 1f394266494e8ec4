/** The page; in a worker, its layouts. */
import { App } from "./app";
import type { NetworkDocument } from "./document";
import { h } from "./dom";
import { serve } from "./layouts";
import { Network } from "./network";

/** What the document holds, as written by this version of snncc. */
function read(): NetworkDocument {
  return JSON.parse(document.getElementById("document")?.textContent ?? "") as NetworkDocument;
}

/** In place of a page that cannot be shown, why it cannot. */
function refuse(fault: unknown): never {
  document.body.append(h("p", { role: "alert" }, `This page cannot be shown: ${String(fault)}. Write it again with snncc inspect --html.`));
  throw fault;
}

async function show(): Promise<void> {
  const code = document.getElementById("code")?.textContent ?? "";
  await new App(new Network(read()), code).start();
}

if (typeof document === "undefined") serve(self);
else show().catch(refuse);
