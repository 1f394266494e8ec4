"""``snncc check``: what would compile and what would not; nothing is written."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from snncc.cli.failures import fault_json, show_faults
from snncc.cli.network import (
    Network,
    Request,
    mean_option,
    network_options,
    read_network,
    std_option,
)
from snncc.cli.report_lines import (
    found_neuron_lines,
    network_line,
    renamed_lines,
    zoo_lines,
)
from snncc.cli.screen import Screen, percent, plural, size, spinner, write_json
from snncc.cli.shared_options import json_option
from snncc.frontends.import_paths import restored_paths

if TYPE_CHECKING:
    from snncc.passes.judge.diagnose import Diagnosis

__all__ = ["check"]

_UNSUPPORTED = 3


@click.command("check", short_help="Say what would compile and what would not.")
@network_options
@mean_option
@std_option
@click.option(
    "--no-neuron-between",
    "between",
    type=click.Choice(["merge", "graded", "auto"]),
    default="auto",
    help="Of two layers, as for compile. Default: auto.",
)
@json_option
def check(
    as_json: bool,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    between: str,
    **given: Any,
) -> None:
    """Say what of a network can become spikes, in seconds; nothing is written.

    WEIGHTS|MODEL is a checkpoint (with --arch), an .onnx file or a .pt2 program. Exit code 3 if
    anything cannot become spikes.
    """
    request = Request(**given)
    request.check()
    network, found = _diagnose(request, {"mean": mean, "std": std}, between)
    if as_json:
        write_json(_to_json(network, found))
    else:
        _show(Screen(), network, found)
        _show_shape(Screen(), request, network)
    if found.faults:
        raise click.exceptions.Exit(_UNSUPPORTED)


def _diagnose(request: Request, pixels: dict[str, Any], between: str) -> tuple[Network, Diagnosis]:
    # the network's code may print, and import what it finds on a path of its own
    with spinner() as say, redirect_stdout(sys.stderr), restored_paths():
        say("read the network")
        network = read_network(request)
        from snncc.compiler import InputOptions
        from snncc.compiler import check as judge

        say("check")
        found = judge(
            network.source,
            input_shape=request.input_shape,
            patch_mask=request.patch_mask,
            timesteps=request.timesteps,
            batch_first=request.batch_first or None,
            leaves=request.described,
            until=request.until,
            results=request.results,
            host=request.host,
            input=InputOptions(**pixels),
            no_neuron_between=between,
            trust_pickle=request.trust_pickle,
        )
    return network, found


def _to_json(network: Network, found: Diagnosis) -> dict[str, Any]:
    return {
        **asdict(found),
        "faults": [fault_json(fault) for fault in found.faults],
        "near_misses": [fault_json(fault) for fault in found.near_misses],
        "checkpoint": network.checkpoint,
        "origins": network.origins,
    }


def _show(screen: Screen, network: Network, found: Diagnosis) -> None:
    if found.faults:
        _show_faults(screen, found)
    else:
        lowered = f"{found.activations_lowered}/{found.activations_found} activations have levels"
        screen.line("ok", f"{lowered}; {_macs(found)}; nothing stands in the way of snncc compile")
    screen.line(*network_line(network.checkpoint, network.origins))
    told = (*zoo_lines(network.checkpoint), *renamed_lines(network.checkpoint))
    for line in (*told, *found_neuron_lines(found.found_neurons)):
        screen.line(*line)


def _show_shape(screen: Screen, request: Request, network: Network) -> None:
    shape = request.input_shape or network.config.get("input_size")
    T = request.timesteps or network.config.get("timesteps")
    if shape:
        frames = f"{T} timesteps of " if T and network.checkpoint else ""
        screen.line("input", f"{frames}{size(shape)} ({network.origins['input_shape']})")


def _show_faults(screen: Screen, found: Diagnosis) -> None:
    kinds = len({fault.kind for fault in found.faults})
    nodes = plural(len(found.faults), "node")
    screen.error(f"{nodes} of {plural(kinds, 'kind')} cannot become spikes; nothing written")
    if others := [fault for fault in found.faults if fault not in found.near_misses]:
        show_faults(screen, others)
    for miss in found.near_misses:
        place = f"{miss.module or miss.node} ({miss.source})" if miss.source else miss.where
        screen.text(f"near miss: {place} {miss.what}; {miss.todo}")
    prefix = "no exact prefix"
    if found.until:
        prefix = f"longest exact prefix ends at {found.until} (--until {found.until})"
    screen.text(f"{_macs(found)}; {prefix}")
    if found.results:
        names = ",".join(found.results)
        screen.text(f"nothing stands in the way of these results: --results {names}")


def _macs(found: Diagnosis) -> str:
    if not found.macs:
        return "no multiply-accumulates counted"
    return f"lowerable {percent(found.macs_lowerable / found.macs)} of MACs"
