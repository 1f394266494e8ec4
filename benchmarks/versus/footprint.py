"""Peak memory of a process that does one thing, in MB; run as a script by ``memory.py``.

Usage: footprint.py ENGINE FILE INPUTS. ENGINE is ``numpy`` (loads the inputs and no more), an
engine of ours with a .snn file, or ``onnxruntime`` with an .onnx file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

__all__ = ["main"]


def main(engine: str, file: str, inputs: str) -> None:
    """Runs the samples one by one and prints the peak."""
    x = np.load(inputs)
    if engine == "onnxruntime":
        _onnxruntime(file, x)
    elif engine != "numpy":
        _ours(engine, file, x)
    print(_peak())


def _ours(engine: str, file: str, x: np.ndarray) -> None:
    import snncc

    session = snncc.Session(file, engine=engine, batch=1)
    for sample in x:
        session.run(None, {"x": sample[np.newaxis]})


def _onnxruntime(file: str, x: np.ndarray) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    for sample in x:
        session.run(None, {"x": sample[np.newaxis]})


def _peak() -> float:
    """VmHWM: unlike ru_maxrss it forgets what the parent had when it forked."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("no VmHWM in /proc/self/status")


if __name__ == "__main__":
    main(*sys.argv[1:])
