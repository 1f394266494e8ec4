"""What a pass is, and the manager that runs, checks and records a sequence of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import BadInputError, Fault, SnnccError
from snncc.ir.graphs import same_graph
from snncc.ir.stages import set_stage, stage_of, verify_stage
from snncc.ir.validation import validate_translation

__all__ = ["Feeds", "Law", "Pass", "PassManager", "PassRecord"]

Feeds = Mapping[str, npt.NDArray[Any]]


class Law(Enum):
    """How the values of a graph before and after a pass compare."""

    #: Equal within the margin of float32.
    FLOAT = "float"
    #: Equal integers.
    EXACT = "exact"
    #: Not compared: what the pass changes is measured on data.
    LOSSY = "lossy"


@dataclass(frozen=True)
class Pass:
    """One rewrite of the whole graph: a valid graph in, a valid graph out.

    The fields of a subclass are its options. ``run`` edits the model in place and may use every
    name law of ``snncc.ir.graphs``: what keeps its name keeps its meaning.

    Attributes:
        name: As the command line and reports say it, kebab-case, verb first.
        stage_in: Stage the graph must be in.
        stage_out: Stage it is in afterwards.
        law: How before and after compare.
    """

    name: ClassVar[str]
    stage_in: ClassVar[str]
    stage_out: ClassVar[str]
    law: ClassVar[Law] = Law.FLOAT

    def run(self, model: ir.Model) -> int:
        """Rewrite ``model`` in place.

        Returns:
            How many places were rewritten.

        Raises:
            UnsupportedModelError: The graph holds what the pass cannot treat; all places at once.
        """
        raise NotImplementedError

    def inputs(self, model: ir.Model, feeds: Feeds) -> Feeds:
        """The inputs for which the graph before and after must agree.

        Args:
            model: The graph before.
            feeds: Inputs of it.
        """
        return feeds

    def options(self) -> dict[str, Any]:
        """The pass's options by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass
class PassRecord:
    """What one pass did.

    Attributes:
        name: Of the pass.
        rewrites: Places rewritten.
        seconds: Wall time of the pass, without checks.
        checked: Shared values compared by the oracle (0: not compared).
        elements: Of them.
        worst: Largest |change| / sum|w||a| over them.
    """

    name: str
    rewrites: int
    seconds: float
    checked: int = 0
    elements: int = 0
    worst: float = 0.0


@dataclass
class PassManager:
    """Runs passes in order; after each the stage is verified and, with feeds, its meaning.

    Attributes:
        passes: In order.
        feeds: Inputs for translation validation, under every name the input has in any stage;
            none: no validation.
        dump_dir: Write the graph's text after each pass there.
        begin: Called with the name of each pass before it.
        records: What was done.
        kept: Names of the passes after which the graph is wanted; none: all of them.
        stages: Last graph of every stage passed.
        after: Graph after the passes wanted, by name.
    """

    passes: Sequence[Pass]
    feeds: Feeds | None = None
    dump_dir: Path | None = None
    begin: Callable[[str], None] | None = None
    kept: Collection[str] | None = None
    records: list[PassRecord] = field(default_factory=list)
    stages: dict[str, ir.Model] = field(default_factory=dict)
    after: dict[str, ir.Model] = field(default_factory=dict)

    def run(self, model: ir.Model) -> ir.Model:
        """The model after all passes; the one given stays untouched.

        Raises:
            SnnccError: What a pass raised, prefixed with its name.
        """
        self._keep(model, 0, "import")
        for i, step in enumerate(self.passes, 1):
            model = self._step(step, model)
            self._keep(model, i, step.name)
        return model

    def _step(self, step: Pass, before: ir.Model) -> ir.Model:
        if stage_of(before) != step.stage_in:
            raise SnnccError(
                f"{step.name}: wants stage '{step.stage_in}', not '{stage_of(before)}'"
            )
        if self.begin is not None:
            self.begin(step.name)
        after = before.clone()
        try:
            # What overflows is found by its result and named, not by numpy at some line of ours.
            with np.errstate(all="ignore"):
                record = self._run(step, before, after)
                self._validate(step, before, after, record)
        except SnnccError as e:
            raise e.within(f"{step.name}: ") from e
        except Exception as e:
            e.add_note(f"in pass {step.name}") if hasattr(e, "add_note") else None
            raise
        self.records.append(record)
        return after

    def _run(self, step: Pass, before: ir.Model, after: ir.Model) -> PassRecord:
        start = time.perf_counter()
        try:
            record = PassRecord(step.name, step.run(after), time.perf_counter() - start)
        except (OverflowError, ValueError):  # of infinities and NaN there are no fractions
            _require_finite(before, after)
            raise
        _require_finite(before, after)
        set_stage(after, step.stage_out)
        verify_stage(after, step.stage_out)
        return record

    def _validate(self, step: Pass, before: ir.Model, after: ir.Model, record: PassRecord) -> None:
        if self.feeds is None or step.law is Law.LOSSY or same_graph(before, after):
            return
        feeds = step.inputs(before, self.feeds)
        found = validate_translation(before, after, feeds, exact=step.law is Law.EXACT)
        record.checked, record.elements = len(found), sum(d.total for d in found)
        record.worst = float(np.max([d.worst for d in found], initial=0.0))

    def _keep(self, model: ir.Model, index: int, name: str) -> None:
        self.stages[stage_of(model)] = model
        if self.kept is None or name in self.kept:
            self.after[name] = model
        if self.dump_dir is not None:
            from snncc.ir.text import dump

            self.dump_dir.mkdir(parents=True, exist_ok=True)
            (self.dump_dir / f"{index:02d}-{name}.txt").write_text(dump(model), encoding="utf-8")


def _require_finite(before: ir.Model, after: ir.Model) -> None:
    """The constants that a pass made are numbers: what it was given was checked at import.

    Raises:
        BadInputError: Weights are so large that their products overflow float32; all such.
    """
    known = {id(value.const_value) for value in before.graph.initializers.values()}
    faults = []
    for name, value in after.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or id(tensor) in known or not tensor.dtype.is_floating_point():
            continue
        bad = int(np.count_nonzero(~np.isfinite(tensor.numpy())))
        if bad:
            faults.append(Fault(f"{bad} of {tensor.size} values overflow float32", node=name))
    if faults:
        raise BadInputError("weights are too large", faults)
