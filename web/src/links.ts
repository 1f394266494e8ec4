/** Deep links: `#block3.0.attn`, and `?stage=integer&view=energy` after it where they are not the usual. */

export interface Link {
  path: string;
  stage: string;
  view: string;
}

export function parseLink(hash: string): Link {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  const given = new URLSearchParams(query);
  return { path: decoded(path), stage: given.get("stage") ?? "", view: given.get("view") ?? "" };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % in a link that somebody typed
  }
}

/** The link of a place; stage and view are empty where they are the usual ones. */
export function linkTo({ path, stage, view }: Link): string {
  const given = new URLSearchParams();
  if (stage) given.set("stage", stage);
  if (view) given.set("view", view);
  const query = given.toString();
  return `#${encodeURIComponent(path).replaceAll("%2F", "/").replaceAll("%3A", ":")}${query ? `?${query}` : ""}`;
}
