"""Peak memory of processes that only load and run W1, against an interpreter with numpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from snncc.errors import MissingDependencyError
from snncc.runtime.artifact import CompiledModel, manifest_of
from snncc.runtime.contract import InputContract
from versus import footprint
from versus.builder import Network
from versus.networks import w1
from versus.onnx_fp32 import float_model
from versus.onnx_int8 import Int8Form, int8_model
from versus.trial import OURS

__all__ = ["measure_memory"]


def measure_memory(engine: str) -> dict[str, Any]:
    """Process -> ``{"peak": MB}`` or ``{"missing": why}``; ``numpy`` is the bare interpreter.

    Args:
        engine: Ours.

    Raises:
        MissingDependencyError: The system does not say.
    """
    network = w1(0.34)
    with TemporaryDirectory() as place:
        folder = Path(place)
        _write(network, folder)
        bare = _peak(folder, "numpy", "w1.snn")
        if "missing" in bare:
            raise MissingDependencyError(f"peak memory cannot be read here: {bare['missing']}")
        return {
            "numpy": bare,
            OURS: _peak(folder, engine, "w1.snn"),
            "ort_fp32": _peak(folder, "onnxruntime", "fp32.onnx"),
            "ort_int8": _peak(folder, "onnxruntime", "int8.onnx"),
        }


def _write(network: Network, folder: Path) -> None:
    program = network.program
    contract = InputContract(program.source.name, program.source.shape)
    CompiledModel(program, manifest_of(program, contract)).save(folder / "w1.snn")
    onnx.save(float_model(program, folded=True, late=False), str(folder / "fp32.onnx"))
    form = Int8Form(channels_last=True, unsigned=False)
    onnx.save(int8_model(program, form), str(folder / "int8.onnx"))
    np.save(folder / "inputs.npy", network.inputs)


def _peak(folder: Path, engine: str, file: str) -> dict[str, Any]:
    command = [sys.executable, footprint.__file__, engine, str(folder / file)]
    done = subprocess.run(
        [*command, str(folder / "inputs.npy")], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"missing": done.stderr.strip().splitlines()[-1]}
    return {"peak": round(float(done.stdout), 2)}
