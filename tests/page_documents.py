"""Pages of the small network: with whatever module names, read back as a browser would."""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Any

import numpy as np
import small_model
from reports import MEASURED

from snncc.program import Program
from snncc.runtime.report import LayerReport

__all__ = ["HOSTILE", "document_of", "map_of", "profile_of", "small", "unpacked"]

#: Names that would be markup, end the script element they stand in, or break its lines.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><!--\u2028&lt;",
)


def small(modules=("net.act1", "net.act2"), **report: Any):
    """The small network with a report about its own layers; its populations in these modules."""
    model = small_model.compiled()
    names = {n.name: m for n, m in zip(model.program.neurons, modules, strict=True)}
    nodes = tuple(
        replace(node, module=names.get(node.name, node.module)) for node in model.program.nodes
    )
    program = Program("small", nodes, timesteps=model.program.timesteps, ticks=small_model.D)
    for proto in model.graphs.values():
        for node in proto.graph.node:
            name = node.output[0].removesuffix(":spikes")
            node.metadata_props.add(key="snncc.module", value=names.get(name, "net.other"))
    layers = tuple(
        LayerReport(n.module, n.name, n.shape, n.D, n.rounding, n.depth, 0.25, 0.125, 0.5, 2, 9, 9)
        for n in program.neurons
    )
    made = replace(MEASURED, layers=layers, **report)
    return replace(model, program=program, reported=made)


def document_of(page: bytes) -> dict[str, Any]:
    """The network in a page, as its script reads it."""
    found = re.findall(
        r'<script type="application/json" id="document">(.*?)</script>', page.decode()
    )
    assert len(found) == 1
    return json.loads(found[0])


def unpacked(held):
    """A map in a page."""
    data = zlib.decompress(b64decode(held["data"]), wbits=-zlib.MAX_WBITS)
    return np.frombuffer(data, np.uint8).reshape(held["shape"])


def map_of(array):
    """A map in a profile."""
    return {"shape": list(array.shape), "data": b64encode(array.tobytes()).decode()}


def profile_of(model, samples=2) -> dict[str, Any]:
    """What ``snncc profile`` writes, as far as pages read it; the figures are made up."""
    ways = dict.fromkeys(("snn", "dense", "quantised", "quantised_skipping"), 1.5)
    rates = {"rate": 0.1, "break_even": None, "break_even_skipping": 0.2, "least": "snn"}
    told = {
        "description": "made up",
        "formula": {"snn": "SOPs x 1"},
        "constants": {"a": 1},
        "sources": [],
    }
    counts = model.reference.counts
    populations = [
        {
            "name": n.name,
            "module": n.module,
            "neurons": int(np.prod(n.shape)),
            "D": n.D,
            "window": n.depth,
            "nsfr": [[0.5, 0.25, 0.125, 0.0]],
            "histogram": [4, 3, 2, 1, 0],
            "silent": 1,
            **dict.fromkeys(("mean_count", "nonzero", "saturated", "spikes", "sops"), 0.5),
        }
        for n in model.program.neurons
    ]
    layer = {
        "name": "fc:v",
        "module": "fc",
        "kind": "linear",
        "energy": {"made-up": {**ways, **rates}},
    }
    maps = [
        {
            "index": i,
            "input": map_of(model.reference.x[i][np.newaxis]),
            "counts": {name: map_of(array[:, i]) for name, array in counts.items()},
        }
        for i in range(samples)
    ]
    return {
        "format": "snncc-profile",
        "version": 1,
        "name": model.name,
        "hash": model.sha256,
        "engine": "event",
        "data": "x.npz (npz)",
        "samples": 5,
        "clock_ticks": 8,
        "populations": populations,
        "layers": [{**layer, **dict.fromkeys(("sops", "macs", "acs", "dense"), 7)}],
        **dict.fromkeys(("spikes", "sops", "acs", "macs", "dense"), 9.5),
        "events": {"per_tick": [1.0] * 8, "mean": 1.0, "peak": 2},
        "energy": {"made-up": {**told, **ways, **rates}},
        "maps": {"samples": maps} if samples else None,
    }
