"""``snncc compile``: a trained network in, a verified ``.snn`` file out."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snncc.cli import report_lines
from snncc.cli.files import check_dump_folder, check_input_file, check_output_file, output_file
from snncc.cli.network import (
    Network,
    Request,
    mean_option,
    network_options,
    numbers,
    read_network,
    std_option,
)
from snncc.cli.screen import Screen, file_size, steps, write_json
from snncc.cli.shared_options import PATH
from snncc.compiler.progress import Step
from snncc.errors import TargetError, UnsupportedModelError, UsageError
from snncc.frontends.import_paths import restored_paths

if TYPE_CHECKING:
    from snncc.compiler import Options
    from snncc.runtime.artifact import CompiledModel

__all__ = ["compile_"]

_CONFIG = "the module's default_cfg"


@dataclass(frozen=True)
class _Choices:
    """What the command line says about the compilation; fields as its options."""

    mode: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    limits: tuple[float, ...] | None
    target: str | None
    weight_bits: int | str | None
    rounding: str | None
    bias_correction: bool | None
    no_neuron_between: str | None
    calibration: Path | None
    calibration_limit: int | None
    verify_samples: int | None
    name: str | None
    keep_stages: bool
    dump_ir: Path | None
    out: Path | None
    force: bool


def _range(value: str) -> tuple[float, ...]:
    found = numbers(value)
    if len(found) != 2 or found[0] >= found[1]:
        raise click.BadParameter(f"'{value}' is not LOW,HIGH")
    return found


def _bits(value: str) -> int | str:
    if value == "auto":
        return value
    if not value.isdecimal() or not 4 <= int(value) <= 24:
        raise click.BadParameter(f"'{value}' is not a number from 4 to 24, nor auto")
    return int(value)


@click.command("compile", short_help="Compile a trained network to a .snn file.")
@network_options
@click.option(
    "--input",
    "mode",
    type=click.Choice(["u8", "f32"]),
    help="u8: raw pixels; f32: real values on 256 steps. Default: u8 if mean or std is known.",
)
@mean_option
@std_option
@click.option(
    "--input-range",
    "limits",
    type=_range,
    metavar="LOW,HIGH",
    help="Of f32 input. Default: that of the calibration data.",
)
@click.option(
    "--target",
    type=click.Choice(["loihi2"]),
    help="What it must fit: 8-bit weights, 24-bit potentials, as Lava's processes. Default: none.",
)
@click.option(
    "--weight-bits",
    type=_bits,
    metavar="N|auto",
    help="4 to 24, in slices of 8; auto: 8, and 16 where most changes. Default: 16, or the "
    "target's.",
)
@click.option(
    "--rounding",
    type=click.Choice(["nearest", "data"]),
    help="Of weights; data: least error on the calibration data. Default: nearest.",
)
@click.option(
    "--bias-correction/--no-bias-correction",
    default=None,
    help="Take mean errors on the calibration data off biases. Default: with --rounding data.",
)
@click.option(
    "--no-neuron-between",
    type=click.Choice(["merge", "graded", "auto"]),
    help="Of two layers: merged weights, graded payloads, or what takes less. Default: auto.",
)
@click.option(
    "--calibration",
    type=PATH,
    metavar="DATA",
    help="Samples on which changes are measured: npz, npy, idx or a folder of images.",
)
@click.option(
    "--calibration-limit", type=click.IntRange(min=1), metavar="N", help="Only the first N of them."
)
@click.option(
    "--verify-samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Compare engines on N samples. Default: 32, of large networks fewer.",
)
@click.option("--name", metavar="NAME", help="Of the network. Default: the file's.")
@click.option("--keep-stages", is_flag=True, help="Store earlier graphs with their weights, too.")
@click.option(
    "--dump-ir",
    type=PATH,
    metavar="DIR",
    help="Write the graph as text after every pass there.",
)
@click.option("-o", "out", type=PATH, metavar="OUT.snn", help="Default: NAME.snn.")
@click.option("-f", "--force", is_flag=True, help="Overwrite what is there.")
@click.option("--json", "as_json", is_flag=True, help="The whole report as one JSON document.")
def compile_(as_json: bool, **given: Any) -> None:
    """Compile a trained network to a verified spiking program.

    WEIGHTS|MODEL is a checkpoint (with --arch), an .onnx file or a .pt2 program.
    """
    start = time.perf_counter()
    request, choices = _split(given)
    name = choices.name or request.model.stem
    out = choices.out or Path(f"{name}.snn")
    _check(request, choices, out)
    with output_file(out, choices.force) as claim:
        try:
            network, model = _compile(request, choices, name, quiet=as_json)
        except (TargetError, UnsupportedModelError) as e:
            raise e.within(after="; nothing written") from e
        claim.write(model.write)
    seconds = time.perf_counter() - start
    if as_json:
        write_json(_to_json(request, network, model, out, seconds))
    else:
        _show(Screen(), network, model, out, seconds)


def _split(given: dict[str, Any]) -> tuple[Request, _Choices]:
    mine = {f.name: given.pop(f.name) for f in fields(_Choices)}
    return Request(**given), _Choices(**mine)


def _check(request: Request, choices: _Choices, out: Path) -> None:
    """Whatever can fail without work fails before it."""
    request.check()
    if choices.calibration is not None:
        check_input_file(choices.calibration, may_be_folder=True)
    elif choices.calibration_limit is not None:
        raise UsageError("--calibration-limit is given without --calibration")
    check_output_file(out, choices.force)
    if choices.dump_ir is not None:
        check_dump_folder(choices.dump_ir, choices.force)


def _compile(
    request: Request, choices: _Choices, name: str, quiet: bool
) -> tuple[Network, CompiledModel]:
    # the network's code may print, and import what it finds on a path of its own
    with steps(quiet) as say, redirect_stdout(sys.stderr), restored_paths():
        say(Step("read the network"))
        network = read_network(request)
        import snncc

        options = _options(request, choices, network, name)
        return network, snncc.compile(network.source, choices.calibration, options, say)


def _options(request: Request, choices: _Choices, network: Network, name: str) -> Options:
    from snncc.compiler import InputOptions, Options

    return Options(
        name=name,
        input_shape=request.input_shape,
        timesteps=request.timesteps,
        batch_first=request.batch_first or None,
        target=choices.target,
        weight_bits=choices.weight_bits,
        rounding=choices.rounding or "nearest",
        bias_correction=choices.bias_correction,
        no_neuron_between=choices.no_neuron_between or "auto",
        input=InputOptions(choices.mode, choices.mean, choices.std, _pair(choices.limits)),
        patch_mask=request.patch_mask,
        leaves=request.described,
        until=request.until,
        results=request.results,
        host=request.host,
        trust_pickle=request.trust_pickle,
        verify_samples=choices.verify_samples,
        keep_stages=choices.keep_stages,
        dump_ir=choices.dump_ir,
        calibration_limit=choices.calibration_limit,
        origins={
            **network.origins,
            "name": "given" if choices.name else "the file's name",
            "weight_bits": _origin_of_bits(choices),
            "rounding": "given" if choices.rounding else "default",
            **_input_origins(choices, network.config),
        },
        checkpoint=network.checkpoint,
    )


def _origin_of_bits(choices: _Choices) -> str:
    if choices.weight_bits:
        return "given"
    return f"target {choices.target}" if choices.target else "default"


def _pair(values: tuple[float, ...] | None) -> tuple[float, float] | None:
    return (values[0], values[1]) if values else None


def _input_origins(choices: _Choices, config: Mapping[str, Any]) -> dict[str, str]:
    known = {
        key: "given" if given is not None else _CONFIG if config.get(key) is not None else "default"
        for key, given in (("mean", choices.mean), ("std", choices.std))
    }
    is_normalised = any(origin != "default" for origin in known.values())
    mode = choices.mode or ("u8" if is_normalised else "f32")
    origins = {"input": "given" if choices.mode else "default"}
    if mode == "u8":
        return {**origins, **known}
    return {**origins, "input_range": "given" if choices.limits else "the calibration data"}


# -- the result ----------------------------------------------------------------------------


def _to_json(
    request: Request, network: Network, model: CompiledModel, out: Path, seconds: float
) -> dict[str, Any]:
    return {
        **model.report.to_json(),
        "name": model.name,
        "results": [result.to_json() for result in model.results],
        "besides_sops_per_sample": dict(model.program.besides),
        "path": str(out),
        "bytes": out.stat().st_size,
        "seconds": round(seconds, 3),
        "seconds_import_torch": round(network.import_seconds, 3),
        "checkpoint": {**network.checkpoint, "path": str(request.model), "arch": request.arch},
    }


def _show(
    screen: Screen, network: Network, model: CompiledModel, out: Path, seconds: float
) -> None:
    for line in report_lines.all_lines(model):
        screen.line(*line)
    took = f"{seconds:.1f} s"
    if network.import_seconds >= 0.05:
        took += f", of which import torch {network.import_seconds:.1f} s"
    screen.line("wrote", str(out), file_size(out.stat().st_size), took)
