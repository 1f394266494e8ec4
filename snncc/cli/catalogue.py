"""``snncc engines``, ``chips`` and ``ops``: what there is, from the registries themselves."""

from __future__ import annotations

from dataclasses import asdict
from difflib import get_close_matches
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import click

from snncc.cli.screen import Screen, write_json
from snncc.cli.shared_options import json_option
from snncc.errors import UsageError

if TYPE_CHECKING:
    from snncc.backends.chip.chips import Chip
    from snncc.backends.engines import EngineEntry
    from snncc.ir.ops import Op

__all__ = ["chips", "engines", "ops", "targets"]


@click.command("engines", short_help="List what compiled networks run on.")
@json_option
def engines(as_json: bool) -> None:
    """List what compiled networks run on, and whether it can run here."""
    from snncc.backends.engines import ENGINES

    if as_json:
        write_json({"engines": [_engine_json(engine) for engine in ENGINES.values()]})
        return
    rows = [(t.name, t.description, t.exactness, t.unavailable or "yes") for t in ENGINES.values()]
    Screen().table(("name", "what", "spikes", "available"), rows)


@click.command("chips", short_help="List the chips that networks can be compiled for.")
@json_option
def chips(as_json: bool) -> None:
    """List the chips that networks can be compiled for, compile --target, and what each holds."""
    from snncc.backends.chip.chips import CHIPS, chip

    found = [chip(name) for name in CHIPS]
    if as_json:
        write_json({"chips": [asdict(c) for c in found]})
        return
    head = ("compile --target", "what", "weights", "potentials", "assumed to hold")
    Screen().table(head, [_chip_row(c) for c in found])


@click.command("targets", hidden=True)
@json_option
def targets(as_json: bool) -> None:
    """See snncc engines and snncc chips."""
    raise UsageError(
        "no command 'targets' any more: snncc engines lists what networks run on, snncc chips what "
        "they can be compiled for"
    )


def _chip_row(c: Chip) -> tuple[str, ...]:
    kilobytes = c.synapse_bytes_per_core // 1024
    cores = f"{c.cores} cores of {c.neurons_per_core:,} neurons and {kilobytes} KB of synapses"
    return (c.name, c.description, f"{c.weight_bits} bit", f"{c.state_bits} bit", cores)


def _engine_json(engine: EngineEntry) -> dict[str, Any]:
    return {
        "name": engine.name,
        "description": engine.description,
        "exactness": engine.exactness,
        "available": not engine.unavailable,
        "unavailable": engine.unavailable,
    }


@click.command("ops", short_help="List the operators of the compiler's graphs.")
@click.argument("name", required=False)
@json_option
def ops(name: str | None, as_json: bool) -> None:
    """List the operators of domain ai.snncc; with NAME also its body in standard ONNX."""
    from snncc.ir.ops import OPS

    if name is not None and name not in OPS:
        near = get_close_matches(name, OPS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(OPS)}"
        raise UsageError(f"no operator '{name}'; {hint}")
    chosen = [OPS[name]] if name is not None else list(OPS.values())
    if as_json:
        write_json({"ops": [_op_json(op) for op in chosen]})
    elif name is not None:
        _show_op(OPS[name])
    else:
        head = ("name", "from stage", "inputs", "outputs", "attributes", "what")
        Screen().table(head, [_op_row(op) for op in chosen])


def _op_json(op: Op) -> dict[str, Any]:
    return {
        "name": op.name,
        "stage": op.stage,
        "doc": op.doc,
        "inputs": op.inputs,
        "outputs": op.outputs,
        "attributes": op.attributes,
        "body": dedent(op.body).strip(),
    }


def _op_row(op: Op) -> tuple[str, ...]:
    attributes = ", ".join(op.attributes) or "-"
    return (op.name, op.stage, _ports(op.inputs), _ports(op.outputs), attributes, op.doc)


def _ports(ports: dict[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{name} {'|'.join(map(_short, types))}" for name, types in ports.items())


def _short(kind: str) -> str:
    return kind.removeprefix("tensor(").removesuffix(")")


def _show_op(op: Op) -> None:
    screen = Screen()
    screen.line("operator", f"ai.snncc {op.name}, from stage '{op.stage}' on")
    screen.line("computes", op.doc)
    screen.line("inputs", _ports(op.inputs))
    screen.line("outputs", _ports(op.outputs))
    attributes = ", ".join(f"{name} ({kind})" for name, kind in op.attributes.items())
    screen.line("attributes", attributes or "none")
    screen.text("\n" + dedent(op.body).strip())
