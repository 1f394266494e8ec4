"""Networks of the zoo at full size: seconds, memory and differences when they are compiled.

    python benchmarks/zoo_size.py e-spikeformer-s --pictures FOLDER
    python benchmarks/zoo_size.py e-spikeformer-12-768 --pictures FOLDER --weight-bits 8

Weights are random, and the statistics of batch norms are taken from the pictures: 0.1 to 0.3 of the
neurons then fire at a tick, as in trained networks. What such a network says about a picture means
nothing; what it costs and whether engines agree does. FOLDER holds pictures of at least 224x224
pixels; crops of them are taken. The checkpoint is written in the official container and compiled by
the command line, in a process of its own. With --time the event engine and ONNX Runtime in fp32, on
the graph of the same integers, optimised, do one picture by turns, each on one thread.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from PIL import Image
from torch import nn

import snncc
from snncc.backends.event.engine import EventEngine
from snncc.frontends.zoo.e_spikeformer import ESpikeFormer, Shape
from snncc.frontends.zoo.e_spikeformer_large import LargeESpikeFormer, LargeShape
from snncc.frontends.zoo.parts import Layers, image_cfg

Array = npt.NDArray[Any]

_Make = Callable[[], nn.Module]
_HALF_UP = Layers(rounding="half-up")
_SIDE = 224
_TURNS = 9
#: Name in the zoo -> a network with random weights.
NETWORKS: dict[str, _Make] = {
    "e-spikeformer-t": lambda: ESpikeFormer(Shape((24, 48, 96, 128)), Layers()),
    "e-spikeformer-s": lambda: ESpikeFormer(Shape((32, 64, 128, 192)), Layers()),
    "e-spikeformer-m": lambda: ESpikeFormer(Shape((48, 96, 192, 240)), Layers()),
    "e-spikeformer-l": lambda: ESpikeFormer(Shape((64, 128, 256, 360)), Layers()),
    "e-spikeformer-12-512": lambda: LargeESpikeFormer(
        LargeShape((128, 256, 512), rep_conv=768, layer_scale=False), _HALF_UP
    ),
    "e-spikeformer-12-768": lambda: LargeESpikeFormer(
        LargeShape((196, 384, 768), layer_scale=False), _HALF_UP
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile one network and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=NETWORKS)
    parser.add_argument("--pictures", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--weight-bits", default="16")
    parser.add_argument("--samples", type=int, default=4, help="pictures to calibrate with")
    parser.add_argument("--verify-samples", help="on so many engines are compared, whole")
    parser.add_argument("--until", metavar="NODE", help="only up to this node or module")
    parser.add_argument("--time", action="store_true", help="event against ONNX Runtime")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    given = parser.parse_args(arguments)
    pictures = crops(given.pictures, max(given.samples, 8))
    with tempfile.TemporaryDirectory() as folder:
        found = compiled(given, pictures, Path(folder))
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print("\n".join(f"{key:18} {value}" for key, value in found.items()))


def crops(folder: Path, count: int) -> Array:
    """Returns uint8 ``[count, 3, 224, 224]``: parts of the pictures in ``folder``, by turns."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    paths = [p for p in found if min(Image.open(p).size) >= _SIDE]
    if not paths:
        raise SystemExit(f"{folder}: no .png or .jpg of at least {_SIDE}x{_SIDE}")
    rng = np.random.default_rng(0)
    parts = []
    for i in range(count):
        picture = np.asarray(Image.open(paths[i % len(paths)]).convert("RGB"))
        top, left = (int(rng.integers(0, max(n - _SIDE, 0) + 1)) for n in picture.shape[:2])
        parts.append(picture[top : top + _SIDE, left : left + _SIDE].transpose(2, 0, 1))
    return np.stack(parts)


@torch.no_grad()
def calibrated(net: nn.Module, pictures: Array) -> nn.Module:
    """The network, statistics of all its batch norms those of the pictures."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    cfg = image_cfg(3)
    mean, std = (torch.tensor(cfg[key])[:, None, None] for key in ("mean", "std"))
    net.train()((torch.from_numpy(pictures).float() / 255 - mean) / std)
    return net.eval()


def compiled(given: argparse.Namespace, pictures: Array, folder: Path) -> dict[str, Any]:
    """What the command line reports of the network, with its time and memory."""
    torch.manual_seed(0)
    net = calibrated(NETWORKS[given.name](), pictures)
    args = argparse.Namespace(model=given.name)
    container = {"model": net.state_dict(), "optimizer": {}, "epoch": 0, "scaler": {}, "args": args}
    torch.save(container, folder / "net.pth")
    np.savez(folder / "pictures.npz", x=pictures[: given.samples])
    command = [sys.executable, "-m", "snncc", "compile", str(folder / "net.pth")]
    command += ["--arch", given.name, "--weight-bits", given.weight_bits]
    command += ["--calibration", str(folder / "pictures.npz"), "-o", str(folder / "net.snn")]
    command += ["--until", given.until] if given.until else []
    command += ["--verify-samples", given.verify_samples] if given.verify_samples else []
    command += ["--keep-stages"] if given.time else []
    if "-12-" in given.name:
        command += ["--host", "head"]
    start = time.perf_counter()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    report = json.loads(done.stdout)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    times = timed(folder / "net.snn", pictures[:1]) if given.time else {}
    return {
        "network": given.name,
        "parameters": report["checkpoint"]["parameters"],
        "populations": len(report["layers"]),
        "windows": report["windows"],
        "ticks": report["latency_ticks"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
        "file_mb": round(report["bytes"] / 1e6, 1),
        "samples": report["verify"]["samples"],
        "samples_by_layer": report["verify"]["layers"]["samples"],
        "spikes": report["verify"]["coverage"]["spikes"],
        "mismatched": report["verify"]["mismatched"],
        "changed": report["changed"],
        "changed_teacher_forced": report["changed_teacher_forced"],
        "ties": report["ties"],
        "import_worst": (report["import_law"] or {}).get("worst"),
        "import_changed": (report["import_law"] or {}).get("changed"),
        "engines": {
            name: verdict["mismatched"] for name, verdict in report["verify"]["engines"].items()
        },
        **times,
    }


def timed(path: Path, picture: Array) -> dict[str, float]:
    """Median milliseconds of a picture uint8 ``[1, 3, 224, 224]``, and their ratio."""
    model = snncc.load(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    peer = ort.InferenceSession(model.onnx("integer"), options)
    ours, feeds = EventEngine(model.program), {peer.get_inputs()[0].name: picture}
    calls: dict[str, Callable[[], Any]] = {
        "event_ms": lambda: ours.infer(picture),
        "ort_fp32_ms": lambda: peer.run(None, feeds),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_TURNS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    found = {name: round(1e3 * float(np.median(s)), 2) for name, s in seconds.items()}
    return {**found, "ratio": round(found["ort_fp32_ms"] / found["event_ms"], 2)}


if __name__ == "__main__":
    main()
