"""README.md of an emitted directory: how to run it, and the network's table."""

from __future__ import annotations

from math import prod

from snncc.backends.lava.plan import Entry, Plan
from snncc.program.nodes.readout import joined

__all__ = ["readme"]

_TEXT = """\
# {name} on Lava
A spiking network, compiled by snncc, as processes of Intel's Lava. It fires, spike for spike, what
the quantised integer network computes. All of it runs on the CPU, in Lava's fixed-point simulation;
nothing here says that it fits or runs on a chip.

```console
$ python3.10 -m venv ../lava && ../lava/bin/pip install lava-nc==0.10.0
$ ../lava/bin/python run.py --input ../x.npy --output ../y.npz                    # one thread, fast
$ ../lava/bin/python run.py --input ../x.npy --output ../y.npz --executor lava    # Lava's runtime
```
`x.npy` holds integers 0 to {payload}, {samples}. `y.npz` holds for every population `counts/NAME`
(T, N, …) and `tick_spikes/NAME` (T, D), with `--trains` also `trains/NAME` (T, D, N, …), and

{results}

`--readouts-only` saves a process per population; `--stock` takes Lava's own model for convolutions,
which is slow. Lava's runtime forks: it needs Linux.

## Time
A frame of {frame} carries {carried}, and frames follow each other without a gap.
What arrives in a frame is summed; in the tick in which the last of it arrives (`first` below, for
the first frame) the answer begins: a neuron that fires k times does so in the first k ticks of its
answer. Conv and Dense deliver a tick later. The first result is complete after {latency}, each
further one {interval} later.

## Network
| process | kind | module | reads | sends (W, H, C) | numbers | first |
|---|---|---|---|---|---|---|
{rows}

{processes} processes, {neurons:,} neurons, {weights:,} weights of 8 bits (those of a convolution
counted once).

## Files
| file | holds |
|---|---|
| `graph.json` | the processes above with all their arguments |
| `tensors.npz` | weights, biases, levels: int8 and int32, in Lava's order (W, H, C) |
| `network.py` | makes the processes and connects them: `build` is what to call from code of yours |
| `executors.py` | Lava's runtime, and the same ProcessModels in one thread |
| `processes/` | Process and ProcessModel modules, nothing else: Lava executes all that lies there |
"""


def readme(plan: Plan, name: str) -> str:
    """The text."""
    program = plan.program
    shape = ", ".join(map(str, program.source.shape))
    sequence = f" or ({program.timesteps}, N, {shape})" if program.timesteps > 1 else ""
    weights = [plan.tensors[e["weight"]].size for e in plan.entries if "weight" in e]
    return _TEXT.format(
        name=name,
        payload=program.source.payload,
        samples=f"(N, {shape}){sequence}",
        frame=_ticks(program.ticks),
        carried=_carried(program.timesteps),
        results=_results(plan),
        interval=_ticks(program.timesteps * program.ticks),
        latency=_ticks(plan.latency + (program.timesteps - 1) * program.ticks),
        rows="\n".join(_row(plan, entry) for entry in plan.entries),
        processes=len(plan.entries),
        neurons=sum(prod(n.shape) for n in program.neurons),
        weights=sum(weights),
    )


def _ticks(count: int) -> str:
    return f"{count} tick{'s' * (count != 1)}"


def _carried(timesteps: int) -> str:
    return f"one of {timesteps} timesteps of a sample" if timesteps > 1 else "one sample"


def _results(plan: Plan) -> str:
    """All results, and which of them are sums."""
    entries = {e["of"]: e for e in plan.entries if e.get("writes") == "readout"}
    lines = []
    for name, readouts in joined(plan.program.readouts).items():
        is_sum = len(readouts) > 1
        lines += [_result(entries[readout.name], is_sum) for readout in readouts]
        all_of_it = len(readouts) == len(entries)
        which = "the network's result" if all_of_it else f"the result `{name}`"
        parts = "them all" if all_of_it else ", ".join(f"`{r.name}`" for r in readouts)
        lines += [f"- {which} is the sum of {parts}, on the host"] if is_sum else []
    return "\n".join(lines)


def _result(entry: Entry, is_sum: bool) -> str:
    shape = ", ".join(map(str, entry["result_shape"]))
    over_time = "summed over T and " if entry["over_time"] == "sum" else ""
    meaning = "a part of the result" if is_sum else "what the trained network computes"
    if entry["host"]:
        meaning = f"what `{entry['host']}` reads, a linear layer of the host that is not in here"
    scale = f"{over_time}times {entry['scale']:g}"
    return f"- `readout/{entry['of']}` (T, N, {shape}), integers; {scale} they are {meaning}"


def _row(plan: Plan, entry: Entry) -> str:
    reads = ", ".join(f"`{name}`" for name in entry.get("inputs", ()))
    sends = "" if "writes" in entry else " x ".join(map(str, entry["shape"]))
    cells = [f"`{entry['name']}`", entry["process"], _module(entry), reads, sends]
    cells.append(plan.notes[entry["name"]])
    cells.append(str(entry.get("first", "")))
    return f"| {' | '.join(cells)} |"


def _module(entry: Entry) -> str:
    return f"`{entry['module']}`" if entry.get("module") else ""
