"""A report that no compilation made: every field of it, with nulls where there may be some."""

from __future__ import annotations

from dataclasses import replace

from snncc.runtime.contract import InputContract
from snncc.runtime.report import (
    Bound,
    CoverageReport,
    EngineReport,
    Float32Report,
    ImportReport,
    LayerReport,
    LayersCompared,
    Observed,
    PassReport,
    Report,
    Squeezed,
    VerifyReport,
)

MEASURED = Report(
    activations_found=1,
    activations_lowered=1,
    macs=36,
    target=None,
    weight_bits="auto",
    layer_bits={"conv": 8},
    squeezed=(Squeezed("conv", 8, 6.5, "fc", 1.25),),
    still_norms=("bn",),
    no_neuron_between=(),
    samples=4,
    compared=144,
    agreement=None,
    changed=0.25,
    changed_teacher_forced=0.125,
    changed_by_input=0.0,
    float32=Float32Report("PyTorch", 1, None),
    saturated=0.5,
    ties=2,
    layers=(LayerReport("fire", "fire", (1, 6, 6), 4, "half-even", 0, 0.25, 0.125, 0.5, 2, 9, 9),),
    analog=("conv",),
    windows=1,
    latency_ticks=4,
    bounds=(Bound("conv", "conv:v", -5, 7, 4, 4),),
    passes=(PassReport("fold-time", 1, 3, 1e-7),),
    import_law=ImportReport("PyTorch", 4, 1, 1, 2, 50, 1e-7, 0, 36, 1e-5),
    input=InputContract("x", (1, 6, 6)),
    origins={"weight_bits": "given"},
    observed=Observed(4, {"conv:v": (-1, 3)}, ("grey",)),
    verify=VerifyReport(
        samples=2,
        available=4,
        mismatched=0,
        stored=(),
        engines={"clocked": EngineReport(1, 9, 40, 0, ())},
        coverage=CoverageReport(1, 1, (), {"fire": (4, 4)}, 9, 2),
        layers=LayersCompared("spike-form", 2, 72, 0),
    ),
    silent=(),
    checkpoint={"file": "net.pt"},
)
#: The same without calibration data.
UNMEASURED = replace(
    MEASURED,
    samples=0,
    compared=None,
    changed=None,
    changed_teacher_forced=None,
    changed_by_input=None,
    float32=None,
    saturated=None,
    ties=None,
    layers=(LayerReport("fire", "fire", (1, 6, 6), 4, "half-even", 0),),
    observed=None,
    checkpoint=None,
)
