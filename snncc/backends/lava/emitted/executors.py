"""Two ways to run connected processes; both run the same ProcessModels.

``run_lava`` is Lava's own runtime: an operating-system process for each Process, in lock-step.
``run_direct`` keeps Lava's compiler, ProcessModels and ports but replaces channels by arrays, and
calls the models one after the other in a single thread. It is faster, and easier to debug.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Any

import networkx
import numpy as np
from lava.magma.core.process.ports.ports import create_port_id
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import RunConfig

__all__ = ["EXECUTORS", "Timing", "run_direct", "run_lava"]

#: Messages that a channel holds. All models advance tick by tick together; Lava's default of 64
#: takes 64 times the shared memory, more than containers often have.
_COMPILE = {"pypy_channel_size": 2}
#: How often to look whether all processes are well.
_LOOK_S = 0.005
#: How long to wait for the one that raised, where one that depends on it ended first.
_LAST_WORDS_S = 2.0


@dataclass(frozen=True)
class Timing:
    """How long it took.

    Attributes:
        processes: Lava processes.
        startup_s: Seconds to compile and start them.
        run_s: Seconds for all ticks.
    """

    processes: int
    startup_s: float
    run_s: float


def run_lava(process: AbstractProcess, config: RunConfig, ticks: int) -> Timing:
    """Runs all that is connected with ``process`` on Lava's runtime.

    Raises:
        RuntimeError: A model raised, with what it said; or its process was ended.
    """
    start = perf_counter()
    process.create_runtime(run_cfg=config, compile_config=dict(_COMPILE))
    runtime = process.runtime
    ready = perf_counter()
    process.run(condition=RunSteps(num_steps=ticks, blocking=False))
    _watch(runtime)
    done = perf_counter()
    process.stop()
    return Timing(len(runtime._executable.process_list), ready - start, done - ready)


def _watch(runtime: Any) -> None:
    """Returns when all ticks are done.

    Where a model raises, those that wait for what it sends would wait for ever, and Lava with them.
    """
    actors = runtime._messaging_infrastructure.actors
    while not any(port.probe() for port in runtime.service_to_runtime):
        ended = [actor for actor in actors if not actor.is_alive()]
        if ended:
            words = _last_words(_speaking(actors) or ended)
            for actor in actors:
                actor.terminate()
            runtime._messaging_infrastructure.smm.shutdown()
            runtime._is_started = False  # Lava itself can no longer stop it
            raise RuntimeError(words)
        sleep(_LOOK_S)
    try:
        runtime.wait()
    except RuntimeError as e:
        runtime._is_started = False
        raise RuntimeError(_last_words(a for a in actors if a.exception) or str(e)) from e


def _speaking(actors: Iterable[Any]) -> list[Any]:
    """Those that raised, as soon as there is one."""
    until = perf_counter() + _LAST_WORDS_S
    while perf_counter() < until:
        if found := [actor for actor in actors if actor.exception]:
            return found
        sleep(_LOOK_S)
    return []


def _last_words(actors: Iterable[Any]) -> str:
    """What those that ended say, once each."""
    said = []
    for actor in actors:
        error = actor.exception[0] if actor.exception else None
        if error is None:
            said.append(f"a process ended ({actor.exitcode})")
        else:
            speaks = isinstance(error, (ArithmeticError, OSError, ValueError))
            said.append(str(error) if speaks else f"{type(error).__name__}: {error}")
    return "; ".join(dict.fromkeys(said))


def run_direct(process: AbstractProcess, config: RunConfig, ticks: int) -> Timing:
    """Runs all that is connected with ``process`` in this thread.

    Raises:
        Exception: What a model raises.
    """
    start = perf_counter()
    executable = process.compile(config, dict(_COMPILE))
    models = _models(executable)
    ready = perf_counter()
    for time_step in range(1, ticks + 1):
        for model in models:
            model.time_step = time_step
            model.run_spk()
    return Timing(len(models), ready - start, perf_counter() - ready)


def _models(executable: Any) -> list[Any]:
    """The ProcessModels, each after those that it hears from in the same tick."""
    order = networkx.DiGraph()
    order.add_nodes_from(executable.process_list)
    builders = executable.proc_builders
    for c in executable.channel_builders:
        channel = _Channel(c.src_port_initializer.d_type)
        source, target = builders[c.src_process], builders[c.dst_process]
        source.set_csp_ports([_End(c.src_port_initializer.name, channel)])
        end = _End(c.dst_port_initializer.name, channel)
        target.set_csp_ports([end])
        port = create_port_id(c.src_process.id, c.src_port_initializer.name)
        target.add_csp_port_mapping(port, end)
        order.add_edge(c.src_process, c.dst_process)
    return [builders[p].build() for p in networkx.topological_sort(order)]


class _Channel:
    """What was sent last."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.value: Any = None


@dataclass(frozen=True)
class _End:
    """A channel as one of its two ports sees it."""

    name: str
    channel: _Channel

    def send(self, data: Any) -> None:
        """A copy is kept, as in shared memory."""
        self.channel.value = np.array(data, dtype=self.channel.dtype)

    def recv(self) -> Any:
        """What was sent in this tick."""
        return self.channel.value


EXECUTORS: dict[str, Callable[[AbstractProcess, RunConfig, int], Timing]] = {
    "lava": run_lava,
    "direct": run_direct,
}
