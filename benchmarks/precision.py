"""What quantisation does to the example networks: accuracy, classes, activations, bits by bits.

    python benchmarks/precision.py                 # all networks, 10,000 images: half an hour
    python benchmarks/precision.py --networks cnn_d4 --limit 1000

Every row is a compilation with the test images as calibration data, so its figures are those of the
report; accuracy is that of the integer engine, hence of every engine. The rows with an option
choose weights or bits with as many training images, and are measured on the test images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import snncc
from snncc.errors import UnsupportedModelError

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "fashion_mnist"
sys.path.insert(0, str(EXAMPLES))

Array = npt.NDArray[Any]
Row = dict[str, Any]


#: Module and name of the constructor, and the fewest bits that hold its weights.
NETWORKS = {
    "cnn_d4": ("models", "cnn", 4),
    "residual_d4": ("models", "residual", 4),
    "ssc_d4": ("models", "ssc", 4),
    "lif_t4": ("lif_models", "lif", 4),
    "spikformer_t4": ("spikformers", "spikformer", 4),
    "cml_spikingformer_t4": ("spikformers", "cml_spikingformer", 4),
    "sdt_v1_t4": ("spikformers", "sdt_v1", 4),
    "sew_t4": ("resnets", "sew", 4),
    "mlf_t4": ("resnets", "mlf", 4),
    "danet_t4": ("resnets", "danet", 4),
    "spikeformer_d4": ("spikeformer", "spikeformer", 4),
    "spikeformer_ssc_d4": ("spikeformer", "spikeformer_ssc", 4),
    "cnn_d4_grid8": ("models_grid", "cnn_grid", 8),
    "spikeformer_d4_grid8": ("models_grid", "spikeformer_grid", 8),
}
BITS = (24, 16, 8, 4)
#: What helps at 8 bits.
HELP: dict[str, Row] = {
    "--bias-correction": {"weight_bits": 8, "bias_correction": True},
    "--rounding data": {"weight_bits": 8, "rounding": "data"},
    "--weight-bits auto": {"weight_bits": "auto"},
    "auto, --rounding data": {"weight_bits": "auto", "rounding": "data"},
}


class Data(NamedTuple):
    """Test images uint8 ``[N, 1, 28, 28]`` with labels ``[N]``; as many training images."""

    x: Array
    y: Array
    others: Array


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description="Precision of the example networks.")
    parser.add_argument(
        "--data",
        type=Path,
        default=example("data", "DEBIAN_FOLDER"),
        help="folder of IDX .gz files",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--networks", metavar="A,B", default=",".join(NETWORKS), help="only these")
    parser.add_argument("--bits", metavar="A,B", default=BITS, type=numbers, help="only these")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    given = parser.parse_args(arguments)
    names = given.networks.split(",")
    if not NETWORKS.keys() >= set(names):
        parser.error(f"--networks {given.networks}: there are {', '.join(NETWORKS)}")
    try:
        data = read(given.data, given.limit)
    except (OSError, ValueError) as e:
        parser.error(f"{e}; install the Debian package dataset-fashion-mnist, or give --data")
    rows = []
    for row in measured(names, given.bits, data):
        rows.append(row)
        print(line(row), file=sys.stderr if given.json else sys.stdout, flush=True)
    if given.json:
        print(json.dumps({"images": len(data.x), "rows": rows}, indent=1))


def numbers(text: str) -> tuple[int, ...]:
    """``16,8`` as numbers."""
    return tuple(int(part) for part in text.split(","))


def read(folder: Path, limit: int | None) -> Data:
    """The images of the four files in ``folder``."""
    (x, y), (others, _) = (
        example("data", "read_split")(folder, split) for split in ("t10k", "train")
    )
    return Data(x[:limit], y[:limit], others[: len(x[:limit])])


def measured(names: Iterable[str], bits: Sequence[int], data: Data) -> Iterable[Row]:
    """The rows of the table as they are done."""
    for name in names:
        module, fewest = trained(name), NETWORKS[name][2]
        accuracy = {"network": name, "pytorch": correct(scores_of(module, data.x), data.y)}
        for b in bits:
            if b >= fewest:
                row = compiled(module, data.x, data, weight_bits=b)
                yield {**accuracy, "bits": b, "option": "", **row}
        if 8 in bits and fewest < 8:
            both = np.concatenate([data.others, data.x])  # the first half chooses
            for option, chosen in HELP.items():
                row = compiled(module, both, data, **chosen)
                yield {**accuracy, "bits": chosen["weight_bits"], "option": option, **row}


def example(module: str, name: str) -> Any:
    """What an example's module calls ``name``."""
    return getattr(import_module(module), name)


def trained(name: str) -> nn.Module:
    """The example network with its trained weights."""
    module: nn.Module = example(*NETWORKS[name][:2])()
    module.load_state_dict(torch.load(EXAMPLES / f"{name}.pt", weights_only=True))
    return module.eval()


@torch.no_grad()
def scores_of(module: Any, x: Array, batch: int = 500) -> Array:
    """Class scores ``[N, 10]`` in PyTorch."""
    mean, std = (module.default_cfg[key][0] for key in ("mean", "std"))
    parts = (torch.tensor(x[i : i + batch]) / 255 for i in range(0, len(x), batch))
    return np.concatenate([module((part - mean) / std).numpy() for part in parts])


def correct(scores: Array, y: Array) -> float:
    """Share of the images whose class is right."""
    return float((scores.argmax(axis=1) == y).mean())


def compiled(module: nn.Module, calibration: Array, data: Data, **options: Any) -> Row:
    """Accuracy and report of one compilation."""
    start = time.perf_counter()
    try:
        model = snncc.compile(module, calibration, **options)
    except UnsupportedModelError as e:
        return {"refused": str(e.faults[0]) if e.faults else e.message}
    session = snncc.Session(model, engine="integer", batch=250)
    keys = ("agreement", "changed", "changed_teacher_forced", "samples")
    shifts = [p.shift for a in model.program.accumulators for p in a.projections]
    return {
        "accuracy": correct(session.run(None, {"x": data.x})[0], data.y),
        **{key: getattr(model.report, key) for key in keys},
        "worst_layer": max(layer.changed_teacher_forced or 0.0 for layer in model.report.layers),
        "layer_bits": model.report.layer_bits,
        "largest_shift": max(shifts),
        "mismatched": model.report.verify.mismatched,
        "seconds": round(time.perf_counter() - start, 1),
    }


def line(row: Row) -> str:
    """A row as text; ``auto`` says how many layers have 16 bits."""
    head = f"{row['network']:13} {row['bits']!s:>5}  {row['option']:22}"
    if "refused" in row:
        return f"{head} refused: {row['refused']}"
    raised = sum(bits > 8 for bits in row["layer_bits"].values())
    chosen = f"  ({raised} of {len(row['layer_bits'])} layers 16)" if row["bits"] == "auto" else ""
    return (
        f"{head} PyTorch {row['pytorch']:7.2%}"
        f"  compiled {row['accuracy']:7.2%}  same class {row['agreement']:8.2%}"
        f"  changed {row['changed']:9.5%}  each layer alone {row['changed_teacher_forced']:9.6%}"
        f"  verify {row['mismatched']}  {row['seconds']:.0f} s{chosen}"
    )


if __name__ == "__main__":
    main()
