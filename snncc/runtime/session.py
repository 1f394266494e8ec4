"""Run a compiled network: shaped like ``onnxruntime.InferenceSession``, with spikes inside."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Progress
from snncc.backends.engines import ENGINES, make_engine
from snncc.errors import UsageError
from snncc.program import Accumulator, Neuron
from snncc.runtime.artifact import CompiledModel, load
from snncc.runtime.contract import by_timestep
from snncc.runtime.masks import MASK
from snncc.runtime.profile.counting import Counted
from snncc.runtime.profile.maps import Maps
from snncc.runtime.profile.models import DEFAULT_MODELS, models_named
from snncc.runtime.profile.profile import Profile, profile_of
from snncc.runtime.summary import Summary
from snncc.runtime.trace import Trace

__all__ = ["NodeArg", "Session"]

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]

_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
#: Batches between two looks at what they did: bounds the memory a profile takes.
_CHUNK, _SLOW_CHUNK = 2, 32


@dataclass(frozen=True)
class NodeArg:
    """An input or output.

    Attributes:
        name: The key of the feed, or the name to ask for.
        shape: Sizes, ``N`` for the samples.
        type: ``tensor(uint8)`` or ``tensor(float)``.
    """

    name: str
    shape: list[int | str]
    type: str


class Session:
    """A compiled network on an engine.

    A session may be used from any number of threads at a time, on every engine; runs give what they
    give alone, and share the network. In ``event`` values of runs are kept from run to run, those
    of as many runs as there are processors (or ``threads``, if those are more) and as fit into
    memory, and in ``lava`` as many workers run as there are processors: a further run waits for
    its turn. The other engines make the values of each run anew.

    A child of ``os.fork`` may go on using the session; threads are started anew there. A child in
    which ONNX Runtime is loaded should end by ``os._exit``, as those of ``multiprocessing`` do:
    version 1.31 waits at a regular end for threads that did not come along.

    Args:
        model: The network, or the path of its ``.snn`` file.
        engine: A name of ``snncc.backends.engines.ENGINES``.
        batch: Samples simulated together.
        **options: Of the engine: ``pipelined=True`` lets samples follow each other in ``clocked``;
            ``threads`` and ``kernels`` (``auto``, ``event``, ``dense``) are of ``event``;
            ``executor`` (``direct``, ``lava``), ``lava_python`` and ``timeout`` are of ``lava``.
            ``threads`` is how many threads compute one run, 1 to 1024: the one that calls, and
            others that all runs share; ``"auto"`` are as many as this process may keep busy, by
            its processors, their affinity and the quota of its control groups. ``integer`` and
            ``spike-form`` have ``threads``, too: those of ONNX Runtime, ``"auto"`` by default.

    Raises:
        BadInputError: The file is not a valid ``.snn``.
        UsageError: No such engine or option, or a batch that is not positive.
        MissingDependencyError: The engine needs a package that is not installed.
        TargetError: The network does not fit the engine.
    """

    def __init__(
        self,
        model: CompiledModel | str | os.PathLike[str],
        engine: str = "clocked",
        batch: int = 32,
        **options: Any,
    ) -> None:
        if batch < 1:
            raise UsageError(f"batch {batch} is not positive")
        self.model = model if isinstance(model, CompiledModel) else load(model)
        self.batch = batch
        self.contract = self.model.input
        self._engine = make_engine(engine, self.model, **options)

    def _summary(self) -> Summary:
        model = self.model._summary()
        return replace(model, title=f"Session on {self.engine}, batch {self.batch}: {model.title}")

    def __repr__(self) -> str:
        return self._summary().text()

    def _repr_html_(self) -> str:
        return self._summary().html()

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return self._engine.name

    @property
    def event_share(self) -> float | None:
        """Share of the multiply-adds so far done event by event; None: the engine has no choice."""
        return self._engine.event_share

    @property
    def run_report(self) -> dict[str, Any] | None:
        """What ran so far, of an engine that runs elsewhere; None: it runs in this process."""
        return self._engine.run_report

    @property
    def starts_slowly(self) -> bool:
        """Whether samples had better be given many at a time."""
        return ENGINES[self.engine].starts_slowly

    def get_inputs(self) -> list[NodeArg]:
        """The input, of sequences ``[N, T, *shape]``, and the patch mask where there is one."""
        c = self.contract
        mask = [NodeArg(MASK, ["N", 1, *c.patches], _TYPES["uint8"])] if c.patches else []
        return [NodeArg(c.name, ["N", *c.sample], _TYPES[c.dtype]), *mask]

    def get_outputs(self) -> list[NodeArg]:
        """The results, in the model's order; those of each of T > 1 timesteps begin with T."""
        T = self.model.program.timesteps
        found = []
        for r in self.model.results:
            lead: list[int | str] = ["N"] if T == 1 or r.over_time == "sum" else [T, "N"]
            found.append(NodeArg(r.name, [*lead, *r.shape], "tensor(float)"))
        return found

    def run(
        self,
        output_names: Sequence[str] | None,
        feed: Feed | Array,
        progress: Progress | None = None,
    ) -> list[npt.NDArray[np.float32]]:
        """Results as real numbers: integers times their scale, and what the host makes of them.

        Args:
            output_names: Which, in this order; None for all.
            feed: ``{input name: samples}``, samples as the input contract says; or the samples. Of
                a network that takes a patch mask also ``{"mask": masks}``, zeros and ones
                ``[N, 1, h, w]`` or ``[N, h, w]``; without it every patch is active.
            progress: Called with the number of samples after each batch.

        Returns:
            float32 ``[N, *shape]`` each, or ``[T, N, *shape]`` if T > 1 and the network does not
            sum its result over time.

        Raises:
            BadInputError: Samples of the wrong shape or dtype, or not finite.
            UsageError: An unknown input or output name.
        """
        results = {r.name: r for r in self.model.results}
        names = list(results) if output_names is None else list(output_names)
        if unknown := [name for name in names if name not in results]:
            raise UsageError(f"no output {_quoted(unknown)}; there are {_quoted(results)}")
        integers = self.run_integers(feed, progress)
        return [results[name].real(integers) for name in names]

    def run_integers(
        self, feed: Feed | Array, progress: Progress | None = None
    ) -> dict[str, npt.NDArray[np.int64]]:
        """Name in ``model.outputs`` -> what the engine returns, ``[T, N, *shape]``; see ``run``."""
        return self._engine.infer(self._integers(feed), self.batch, progress)

    def trace(
        self,
        feed: Feed | Array,
        probes: Collection[str] = (),
        progress: Progress | None = None,
    ) -> Trace:
        """What every population did.

        Args:
            feed: See ``run``.
            probes: Populations and accumulators to record, by name or by torch module path.
            progress: Called with the number of samples after each batch.

        Raises:
            BadInputError: Samples of the wrong shape or dtype, or not finite.
            UsageError: An unknown input name or probe.
        """
        nodes = [name for probe in probes for name in self._probed(probe)]
        probed = list(dict.fromkeys(nodes))
        activity = self._engine.run(self._integers(feed), probed, self.batch, progress)
        return Trace.of(activity, self.model.program)

    def profile(
        self,
        feed: Feed | Array,
        models: Sequence[str] = DEFAULT_MODELS,
        maps: int = 0,
        data: str = "",
        progress: Progress | None = None,
    ) -> Profile:
        """What the network does on samples, how much work that is, and what energy it takes.

        Args:
            feed: See ``run``; besides the samples, memory does not grow with their number.
            models: Of energy, by name, or paths of TOML files; see ``docs/profile.md``.
            maps: Keep the spike counts of so many samples, the first.
            data: Where the samples come from, for people.
            progress: Called with the number of samples after each batch.

        Raises:
            BadInputError: Samples of the wrong shape or dtype, or not finite; a file of models that
                is not right.
            UsageError: An unknown input name or model.
        """
        chosen = models_named(models)
        program = self.model.program
        counted = Counted(program, is_static=not self.contract.timesteps)
        kept = Maps(program, maps)
        for x in self._parts(feed):
            activity = self._engine.run(x, (), self.batch, progress)
            kept.add(activity, x)
            counted.add(activity, x)
        told = {"engine": self.engine, "data": data, "maps": kept.to_json()}
        return profile_of(program, counted, chosen, hash=self.model.sha256, **told)

    def _parts(self, feed: Feed | Array) -> Iterator[Array]:
        """The source's integers of some samples at a time; all of them are checked before."""
        x, mask = self.contract.check(*self._arrays(feed))
        length = self.batch * (_SLOW_CHUNK if self.starts_slowly else _CHUNK)
        for at in range(0, len(x), length):
            some = None if mask is None else mask[at : at + length]
            encoded = self.contract.encode(x[at : at + length], some)
            yield by_timestep(encoded, self.contract.shape)

    def _integers(self, feed: Feed | Array) -> Array:
        """The source's integers, (N, *shape) or (T, N, *shape)."""
        return by_timestep(self.contract.encode(*self._arrays(feed)), self.contract.shape)

    def _arrays(self, feed: Feed | Array) -> tuple[Array, Array | None]:
        """Samples and masks, as the contract wants them."""
        name = self.contract.name
        if not isinstance(feed, Mapping):
            return feed, None
        known = {name, MASK} if self.contract.patches else {name}
        if name not in feed or set(feed) - known:
            wanted = " and ".join(f"'{key}'" for key in sorted(known, key=[name, MASK].index))
            raise UsageError(f"feed has {_quoted(feed)}; the network takes {wanted}")
        return feed[name], feed.get(MASK)

    def _probed(self, probe: str) -> list[str]:
        """Names of the nodes a probe means."""
        nodes = [n for n in self.model.program.nodes if isinstance(n, (Accumulator, Neuron))]
        found = [n.name for n in nodes if n.name == probe]
        found = found or [n.name for n in nodes if probe and n.module == probe]
        if found:
            return found
        known = list(dict.fromkeys(name for n in nodes for name in (n.module, n.name) if name))
        close = get_close_matches(probe, known, n=3) or known
        more = f" and {len(close) - 12} more" if len(close) > 12 else ""
        raise UsageError(f"cannot probe '{probe}'; there are {_quoted(close[:12])}{more}")


def _quoted(names: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"
