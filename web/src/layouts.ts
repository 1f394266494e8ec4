/** Layouts off the main thread: the page's own script runs as a worker too, from a blob. */
import type { GraphNode } from "./document";
import { Layouter, type Scene } from "./layout";

type Request = { stage: string; nodes: GraphNode[] } | { stage: string; id: number; open: string[] };
interface Answer {
  id: number;
  scene: Scene;
}

/** What the worker does with what it is sent: graphs once, then which blocks are open. */
export function serve(scope: { onmessage: ((event: MessageEvent<Request>) => void) | null; postMessage: (answer: Answer) => void }): void {
  const layouters = new Map<string, Layouter>();
  scope.onmessage = ({ data }) => {
    if ("nodes" in data) {
      layouters.set(data.stage, new Layouter(data.nodes));
      return;
    }
    const scene = layouters.get(data.stage)?.scene(new Set(data.open));
    if (scene) scope.postMessage({ id: data.id, scene });
  };
}

export class Layouts {
  private readonly worker: Worker | null;
  private readonly sent = new Set<string>();
  private readonly local = new Map<string, Layouter>();
  private readonly waiting = new Map<number, (scene: Scene) => void>();
  private last = 0;

  constructor(code: string) {
    this.worker = started(code);
    if (this.worker) this.worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      this.waiting.get(data.id)?.(data.scene);
      this.waiting.delete(data.id);
    };
  }

  /** The scene of a stage; where no worker runs, it is made here. */
  async scene(stage: string, nodes: GraphNode[], open: ReadonlySet<string>): Promise<Scene> {
    if (!this.worker) {
      const layouter = this.local.get(stage) ?? new Layouter(nodes);
      this.local.set(stage, layouter);
      return layouter.scene(open);
    }
    if (!this.sent.has(stage)) this.post({ stage, nodes: nodes.map(bare) });
    this.sent.add(stage);
    const id = (this.last += 1);
    this.post({ stage, id, open: [...open] });
    return new Promise((resolve) => this.waiting.set(id, resolve));
  }

  private post(request: Request): void {
    this.worker?.postMessage(request);
  }
}

/** All that a layout asks of a node. */
function bare({ name, op, module, inputs }: GraphNode): GraphNode {
  return { name, op, ...(module === undefined ? {} : { module }), ...(inputs === undefined ? {} : { inputs }) };
}

function started(code: string): Worker | null {
  try {
    return new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  } catch {
    return null; // a browser that lets no file start one
  }
}
