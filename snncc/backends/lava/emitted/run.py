"""Run this network on Lava: ``python run.py --input x.npy --output y.npz``.

Needs lava-nc 0.10.0 (Python 3.10, numpy < 2) and nothing else; see README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from snncc.backends.lava.emitted.executors import EXECUTORS
from snncc.backends.lava.emitted.files import Graph, Results, require_file, save
from snncc.backends.lava.emitted.network import build, run_config

__all__ = ["main", "run"]


def run(
    directory: Path,
    x: Path,
    executor: str = "direct",
    *,
    trains: bool = False,
    readouts_only: bool = False,
    stock: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the network does with samples, and a report.

    Args:
        directory: With graph.json and tensors.npz.
        x: .npy file of integers, (N, *shape): shown in every timestep, or (T, N, *shape).
        executor: ``direct`` or ``lava``.
        trains: Keep spike trains.
        readouts_only: No spike counts.
        stock: Lava's own ProcessModel for convolutions.

    Returns:
        Arrays: ``counts/NAME`` uint8 and ``readout/NAME`` int64 (T, N, *shape),
        ``tick_spikes/NAME`` int64 (T, D), ``trains/NAME`` uint8 (T, D, N, *shape).

    Raises:
        ValueError: The samples do not fit the network.
        OverflowError, RuntimeError: A model raised.
    """
    graph = Graph.load(directory)
    samples = _checked(graph, np.load(x, mmap_mode="r"))
    with tempfile.TemporaryDirectory(prefix="lava-") as folder:
        results = Results(Path(folder), samples, graph.description["timesteps"], trains)
        process = build(graph, x, results, readouts_only)
        ticks = graph.ticks(samples)
        timing = EXECUTORS[executor](process, run_config(graph, stock), ticks)
        arrays = {key: np.array(value) for key, value in results.arrays.items()}
    report = {"executor": executor, "samples": samples, "ticks": ticks, **vars(timing)}
    return arrays, report


def _checked(graph: Graph, x: Any) -> int:
    """The number of samples.

    Raises:
        ValueError: Wrong shape, dtype or range.
    """
    if not isinstance(x, np.ndarray):
        raise ValueError("samples are to be one array in a .npy file")
    wanted, T = graph.description["input"], graph.description["timesteps"]
    shape, lead = tuple(wanted["shape"]), x.ndim - len(wanted["shape"])
    if lead not in (1, 2) or x.shape[lead:] != shape or (lead == 2 and len(x) != T) or 0 in x.shape:
        sample = ", ".join(map(str, shape))
        raise ValueError(f"samples of shape {x.shape}, not (N, {sample}) or ({T}, N, {sample})")
    if x.dtype.kind not in "ui":
        raise ValueError(f"samples are {x.dtype}, not integers")
    if x.min() < 0 or x.max() > wanted["payload"]:
        raise ValueError(f"samples are {x.min()}..{x.max()}, not in 0..{wanted['payload']}")
    return int(x.shape[lead - 1])


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True, help="samples, .npy")
    parser.add_argument("--output", type=Path, required=True, help="results, .npz")
    parser.add_argument("--executor", choices=tuple(EXECUTORS), default="direct")
    parser.add_argument("--trains", action="store_true", help="spike trains, too")
    parser.add_argument("--readouts-only", action="store_true", help="no spike counts")
    parser.add_argument("--stock", action="store_true", help="Lava's own model for convolutions")
    given = parser.parse_args(arguments)
    try:
        require_file(given.output)  # before the run, which may take long
        arrays, report = run(
            here, given.input, given.executor, trains=given.trains,
            readouts_only=given.readouts_only, stock=given.stock,
        )  # fmt: skip
        save(given.output, {"report": json.dumps(report), **arrays})
    except (OSError, EOFError, ValueError, OverflowError, RuntimeError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
