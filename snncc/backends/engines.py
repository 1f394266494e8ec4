"""What a compiled network can run on. A new backend is one module and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol

from snncc.backends.base import Engine
from snncc.errors import Fault, MissingDependencyError, TargetError, UsageError, Words
from snncc.program import TOTAL_LIMIT, Program

if TYPE_CHECKING:
    from snncc.ir.fed import FedGraph

__all__ = ["ENGINES", "EngineEntry", "ModelView", "make_engine", "require_engine"]


class ModelView(Protocol):
    """What a backend sees of a compiled network."""

    program: Program

    def fed(self, stage: str) -> FedGraph:
        """The graph of a stage apart from its weights, for ONNX Runtime."""
        ...


@dataclass(frozen=True)
class EngineEntry:
    """Something that runs compiled networks.

    Attributes:
        name: As on the command line.
        description: What it is, one line.
        exactness: What its spikes are compared with the quantised network's.
        make: Builds the engine, given its options; imports what it needs only then.
        needs: Modules that must be installed.
        install: How to get them.
        options: Names of what ``make`` takes besides the network.
        absent: Why it cannot run here for other reasons than modules, or nothing; may take a while.
        state_bits: Of a membrane potential, sign not counted, that it holds.
        refusal: Why it cannot run a network, or nothing.
        faults: If so, all the places, as far as it knows them.
        starts_slowly: Samples had better be given many at a time.
    """

    name: str
    description: str
    exactness: str
    make: Callable[..., Engine]
    needs: tuple[str, ...] = ()
    install: str = ""
    options: tuple[str, ...] = ()
    absent: Callable[[], str] = str
    state_bits: int = TOTAL_LIMIT.bit_length() - 1
    refusal: Callable[[Program], str] = lambda _: ""
    faults: Callable[[Program], list[Fault]] = lambda _: []
    starts_slowly: bool = False

    @property
    def lacks(self) -> str:
        """Which modules it lacks here, or nothing."""
        missing = [module for module in self.needs if find_spec(module) is None]
        return f"needs {', '.join(missing)}: {self.install}" if missing else ""

    @property
    def unavailable(self) -> str:
        """Why it cannot run here, or nothing."""
        return self.lacks or self.absent()


def _integer(model: ModelView, threads: int | Literal["auto"] = "auto") -> Engine:
    from snncc.backends.integer import IntegerEngine

    return IntegerEngine(model.fed("quantised"), model.program, _onnx_threads(threads))


def _spike_form(model: ModelView, threads: int | Literal["auto"] = "auto") -> Engine:
    from snncc.backends.integer import SpikeFormEngine

    return SpikeFormEngine(model.fed("spiking"), model.program, _onnx_threads(threads))


def _onnx_threads(threads: int | Literal["auto"]) -> int:
    """As ONNX Runtime is told: for 0 it takes as many as there are processors."""
    return 0 if threads == "auto" else threads


def _clocked(model: ModelView, pipelined: bool = False) -> Engine:
    from snncc.backends.clocked.engine import ClockedEngine

    return ClockedEngine(model.program, pipelined)


def _event(model: ModelView, threads: int | Literal["auto"] = 1, kernels: str = "auto") -> Engine:
    from snncc.backends.event.engine import EventEngine

    return EventEngine(model.program, threads, kernels)


def _lava(
    model: ModelView,
    executor: str | None = None,
    lava_python: str | None = None,
    timeout: float | None = None,
) -> Engine:
    from snncc.backends.lava.engine import LavaEngine

    return LavaEngine(model.program, executor, lava_python, timeout)


def _no_lava() -> str:
    from snncc.backends.lava.interpreter import find_python

    try:
        find_python()
    except MissingDependencyError as e:
        return e.message.removeprefix("engine 'lava' ")
    return ""


def _lava_refusal(program: Program) -> str:
    from snncc.backends.lava.engine import refusal

    return refusal(program)


def _lava_faults(program: Program) -> list[Fault]:
    from snncc.backends.lava.emit import unsupported

    return unsupported(program)


ENGINES: dict[str, EngineEntry] = {
    entry.name: entry
    for entry in (
        EngineEntry(
            "integer",
            "ONNX Runtime on the quantised graph; the baseline",
            "defines the spike counts",
            _integer,
            ("onnxruntime",),
            "pip install onnxruntime",
            ("threads",),
        ),
        EngineEntry(
            "spike-form",
            "ONNX Runtime on the spiking graph, linear layers tick by tick",
            "exact, train for train",
            _spike_form,
            ("onnxruntime",),
            "pip install onnxruntime",
            ("threads",),
        ),
        EngineEntry(
            "clocked",
            "synchronous simulator with a global clock, numpy",
            "exact, train for train",
            _clocked,
            options=("pipelined",),
        ),
        EngineEntry(
            "event",
            "event-driven simulator without a clock, C",
            "exact",
            _event,
            ("snncc.backends.event._core",),
            "reinstall snncc where there is a C compiler",
            ("threads", "kernels"),
        ),
        EngineEntry(
            "lava",
            "Intel's Lava on the CPU, in a Python 3.10 of its own; weights of 8 bits",
            "exact, train for train",
            _lava,
            options=("executor", "lava_python", "timeout"),
            absent=_no_lava,
            state_bits=23,
            refusal=_lava_refusal,
            faults=_lava_faults,
            starts_slowly=True,
        ),
    )
}


def require_engine(name: str, model: ModelView, options: Collection[str] = ()) -> EngineEntry:
    """What an engine of that name is made by, if it can be made for the network.

    Args:
        name: As on the command line.
        model: The network.
        options: Names of those given for the engine.

    Raises:
        UsageError: There is no such engine, or it has no such option.
        MissingDependencyError: It cannot run here; the message says how it could.
        TargetError: It cannot run this network.
    """
    entry = ENGINES.get(name)
    if entry is None:
        raise UsageError(f"unknown engine '{name}'; there are {', '.join(ENGINES)}")
    if why := entry.lacks:
        raise MissingDependencyError(f"engine '{name}' {why}")
    if unknown := [option for option in options if option not in entry.options]:
        raise UsageError(f"engine '{name}' has no option '{unknown[0]}'")
    if why := entry.refusal(model.program):
        others = ", ".join(t.name for t in ENGINES.values() if not t.refusal(model.program))
        told = Words(f"engine '{name}' ", why, f"; there are {others}")
        raise TargetError(told, entry.faults(model.program))
    return entry


def make_engine(name: str, model: ModelView, **options: Any) -> Engine:
    """The engine of that name for a compiled network.

    Args:
        name: As on the command line.
        model: The network.
        **options: Of the engine.

    Raises:
        UsageError, MissingDependencyError, TargetError: See ``require_engine``.
    """
    return require_engine(name, model, options).make(model, **options)
