/** Keys of the whole page; what a field or a tree does with a key comes first. */

interface Keyed {
  readonly canvas: HTMLElement;
  focusSearch: () => void;
  select: (id: string | null) => void;
  step: (dx: number, dy: number) => void;
  enter: () => void;
  zoom: (factor: number) => void;
  fit: () => void;
  openAll: () => void;
  closeAll: () => void;
  stageAt: (place: number) => void;
}

export function keyboard(app: Keyed): void {
  const anywhere: Record<string, () => void> = {
    "/": () => app.focusSearch(),
    "1": () => app.stageAt(0),
    "2": () => app.stageAt(1),
    "3": () => app.stageAt(2),
    "4": () => app.stageAt(3),
    "]": () => app.openAll(),
    "[": () => app.closeAll(),
    "+": () => app.zoom(1.25),
    "=": () => app.zoom(1.25),
    "-": () => app.zoom(0.8),
    "0": () => app.fit(),
    Escape: () => app.select(null),
  };
  const onCanvas: Record<string, () => void> = {
    ArrowUp: () => app.step(0, -1),
    ArrowDown: () => app.step(0, 1),
    ArrowLeft: () => app.step(-1, 0),
    ArrowRight: () => app.step(1, 0),
    Enter: () => app.enter(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
    const act = anywhere[event.key] ?? (event.target === app.canvas ? onCanvas[event.key] : undefined);
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function isField(target: EventTarget | null): boolean {
  return target instanceof HTMLInputElement || target instanceof HTMLSelectElement;
}
