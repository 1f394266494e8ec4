"""The compiled network and its file: ``.snn``, a deterministic zip that is validated when loaded.

Members: ``manifest.json`` (contracts and the hash of every other member), ``program.json``,
``weights.bin`` (one blob for Program and graphs), ``graphs/<stage>.onnx`` with weights,
``stages/<stage>.onnx`` with statistics of the weights, ``report.json``, ``reference.npz``.
Nothing is pickled. Hashes catch damage and hand edits; a consistent file is still not trusted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from snncc.errors import BadInputError
from snncc.program import Program
from snncc.runtime.array_files import reading
from snncc.runtime.container import (
    Blob,
    array_at,
    read_members,
    sha256,
    stream_sha256,
    write_members,
)
from snncc.runtime.contract import InputContract, Output, Result, outputs_of, results_of
from snncc.runtime.graph_store import (
    WEIGHTS,
    LiveGraphs,
    StoredGraphs,
    externalised,
    extract,
    summarised,
)
from snncc.runtime.manifest import PARTS, SCHEMA_VERSION, check_manifest, manifest_of
from snncc.runtime.reference import Reference
from snncc.runtime.report import Report
from snncc.runtime.summary import Summary
from snncc.system.damage import open_regular
from snncc.system.outputs import claim_file

if TYPE_CHECKING:
    import onnx

    from snncc.ir.fed import FedGraph
    from snncc.system.temporary import TemporaryFolder

__all__ = [
    "PARTS",
    "RUNNABLE",
    "SCHEMA_VERSION",
    "CompiledModel",
    "load",
    "manifest_of",
    "read_model",
]

#: Stages that engines run: of these every file has the weights.
RUNNABLE = ("quantised", "spiking")

_ARRAY_TYPES = ("int8", "int64", "float32")
_IN_MEMORY = 1 << 30  # protobuf cannot hold more than 2 GiB; larger graphs go through a file
_MAX_TIMESTEPS = 4096
_REAL_FIELDS = ("scale", "norm")


@dataclass(eq=False, repr=False)
class CompiledModel:
    """A network as spikes, and all that is known about it.

    Attributes:
        program: What backends run.
        manifest: Plain data, see ``manifest_of``.
        graphs: Stage -> ONNX graph; ``quantised`` and ``spiking`` with weights, in files the
            earlier ones only if ``keep_stages``. Of a loaded model they are parsed when asked for.
        reported: What ``report`` gives; None before the network was verified.
        reference: Samples and what each population must do with them.
        keep_stages: Whether earlier stages are saved with their weights.
        hashes: Member -> sha256, of a loaded model.
    """

    program: Program
    manifest: dict[str, Any]
    graphs: Mapping[str, onnx.ModelProto] = field(default_factory=dict)
    reported: Report | None = None
    reference: Reference | None = None
    keep_stages: bool = False
    hashes: dict[str, str] = field(default_factory=dict)
    _folders: dict[str, tuple[Path, TemporaryFolder | None]] = field(
        default_factory=dict, repr=False
    )
    #: Stages whose stored graphs were found to be the Program's network.
    _agreed: set[str] = field(default_factory=set, repr=False)

    @property
    def name(self) -> str:
        """Of the network."""
        return self.program.name

    @property
    def sha256(self) -> str:
        """What tells this artefact from all others: of its manifest, which has every member's hash.

        As ``manifest.json`` of a file says; of a model that was not loaded, as its file would say.

        Raises:
            BadInputError: The model is invalid.
        """
        hashes = self.hashes or {k: sha256(v) for k, v in _members_of(self).items()}
        if not self.hashes:
            hashes.pop("manifest.json")
        return _own_hash({**self.manifest, "members": hashes})

    @property
    def report(self) -> Report:
        """What the compiler did, proved, measured and verified.

        Raises:
            BadInputError: The model was made by hand and has none.
        """
        if self.reported is None:
            raise BadInputError(f"{self.name}: has no report; compile the network")
        return self.reported

    @property
    def input(self) -> InputContract:
        """What the network takes."""
        return InputContract.from_json(self.manifest["input"])

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What engines return."""
        return outputs_of(self.program)

    @property
    def results(self) -> tuple[Result, ...]:
        """What the network computes: the outputs, or what the host makes of them."""
        return results_of(self.program)

    def _summary(self) -> Summary:
        program = self.program
        neurons = sum(prod(n.shape) for n in program.neurons)
        title = (
            f"CompiledModel '{self.name}': {len(program.neurons)} populations, {neurons:,} "
            f"neurons, T×D = {program.timesteps}×{program.ticks}, {program.windows} firing windows"
        )
        rows = [
            (n.module or n.name, "x".join(map(str, n.shape)), str(n.D), str(n.depth))
            for n in program.neurons
        ]
        return Summary(title, ("population", "shape", "D", "window"), rows)

    def __repr__(self) -> str:
        return self._summary().text()

    def _repr_html_(self) -> str:
        return self._summary().html()

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write the model; the same model gives the same bytes, whole or not at all.

        A symlink is followed: the file it leads to is replaced, and the link stays.

        Args:
            path: The file.
            overwrite: Whether it may be there; what is no regular file is never replaced.

        Raises:
            BadInputError: The file exists, another process writes it at the moment, the folder
                cannot be written, or the model is invalid.
        """
        with claim_file(path, overwrite) as claim:
            claim.write(self.write)
        return Path(path)

    def write(self, file: BinaryIO) -> None:
        """Write the bytes that ``save`` puts into a file.

        Raises:
            BadInputError: The model is invalid.
        """
        self.program.validate()
        check_manifest(self.manifest, self.program)
        write_members(file, _members_of(self))

    def onnx(self, stage: str) -> bytes | str:
        """What ONNX Runtime can open: a graph with its weights, or the path of a file.

        Of a loaded model it is a path in the cache ($SNNCC_CACHE, $XDG_CACHE_HOME/snncc or
        ~/.cache/snncc), next to the weights.

        Raises:
            BadInputError: The model has no such graph, or has it without weights; or a file's graph
                is another network than its Program.
        """
        if stage not in self.graphs or not self._keeps_weights(stage):
            raise BadInputError(f"{self.name}: no graph '{stage}' with weights")
        if isinstance(self.graphs, StoredGraphs):
            self._require_own(stage, self.graphs)
            stored = self.graphs.files
            files = {name: stored[name] for name in stored if self._keeps_weights(name)}
            return self._extracted(stage, files, self.graphs.blob)
        graph = self.graphs[stage]
        if graph.ByteSize() < _IN_MEMORY:
            return bytes(graph.SerializeToString())
        blob = Blob()
        return self._extracted(stage, {stage: externalised(graph, blob)}, blob.tobytes())

    def fed(self, stage: str) -> FedGraph:
        """A graph apart from its weights, which nobody copies.

        Raises:
            BadInputError: See ``onnx``.
        """
        from snncc.ir.fed import FedGraph

        if stage not in self.graphs or not self._keeps_weights(stage):
            raise BadInputError(f"{self.name}: no graph '{stage}' with weights")
        if isinstance(self.graphs, StoredGraphs):
            self._require_own(stage, self.graphs)
        if isinstance(self.graphs, (LiveGraphs, StoredGraphs)):
            return self.graphs.fed(stage)
        return FedGraph(self.graphs[stage])

    def _require_own(self, stage: str, graphs: StoredGraphs) -> None:
        """A file's graph is well formed, and one that engines run is the Program's network."""
        from snncc.runtime.same_network import require_same_network

        graphs.light(stage)  # refuses weights outside the blob
        if stage in RUNNABLE and stage not in self._agreed:
            require_same_network(stage, graphs.whole, self.program, graphs.where)
            self._agreed.add(stage)

    def _keeps_weights(self, stage: str) -> bool:
        return self.keep_stages or stage in RUNNABLE

    def _extracted(self, stage: str, graphs: Mapping[str, bytes], blob: bytes) -> str:
        """Path of a graph in a folder with its weights, written if it is not there."""
        if stage not in self._folders:
            files = {f"{name}.onnx": data for name, data in graphs.items()} | {WEIGHTS: blob}
            hashes = "".join(name + sha256(data) for name, data in sorted(files.items()))
            self._folders[stage] = extract(files, sha256(hashes.encode()))
        return str(self._folders[stage][0] / f"{stage}.onnx")


# -- writing -------------------------------------------------------------------------------


def _members_of(model: CompiledModel) -> dict[str, bytes]:
    blob = Blob()
    program, arrays = model.program.to_json()
    entries = {name: blob.add_array(array) for name, array in arrays.items()}
    members = {
        "program.json": _json_bytes({**program, "arrays": entries}),
        "report.json": _json_bytes(model.reported.to_json() if model.reported else {}),
    }
    live = model.graphs
    for stage in sorted(live):
        graph = live.source(stage) if isinstance(live, LiveGraphs) else live[stage]
        if isinstance(graph, bytes):
            members[f"stages/{stage}.onnx"] = graph
        elif model._keeps_weights(stage):
            members[f"graphs/{stage}.onnx"] = externalised(graph, blob)
        else:
            members[f"stages/{stage}.onnx"] = summarised(graph)
    if model.reference is not None:
        members["reference.npz"] = model.reference.to_npz()
    members[WEIGHTS] = blob.tobytes()
    manifest = {**model.manifest, "members": {k: sha256(v) for k, v in members.items()}}
    members["manifest.json"] = _json_bytes({**manifest, "sha256": _own_hash(manifest)})
    return members


def _own_hash(manifest: Mapping[str, Any]) -> str:
    return sha256(_json_bytes({k: v for k, v in manifest.items() if k != "sha256"}))


def _json_bytes(data: Any) -> bytes:
    text = json.dumps(_plain(data), sort_keys=True, indent=1, allow_nan=False, ensure_ascii=True)
    return text.encode()


def _plain(value: Any) -> Any:
    """Numpy values as Python's; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


# -- reading -------------------------------------------------------------------------------


def load(path: str | os.PathLike[str]) -> CompiledModel:
    """The model in a ``.snn`` file, validated; its graphs are parsed when they are asked for.

    Raises:
        BadInputError: Missing, damaged, edited, of another version, or not a valid network.
    """
    source = Path(path)
    with reading(source), open_regular(source) as file:
        return read_model(file, str(source))


def read_model(file: BinaryIO, where: str, expected: str | None = None) -> CompiledModel:
    """The model in an open ``.snn`` file; see ``load``.

    Args:
        file: Is read from its start.
        where: Its name, for messages.
        expected: sha256 of the file, to be sure that it is that one; None: any.

    Raises:
        BadInputError: See ``load``; or it is another file.
    """
    with reading(Path(where)):  # whatever hostile bytes may raise is a message, not a traceback
        if expected is not None and stream_sha256(file) != expected:
            raise BadInputError(f"{where}: is not the file that it was; it has been replaced")
        file.seek(0)
        members = read_members(file, where)
        try:
            return _model_of(members, where)
        except BadInputError as e:
            if e.message.startswith(where):
                raise
            raise e.within(f"{where}: ") from e


def _model_of(members: dict[str, bytes], where: str) -> CompiledModel:
    manifest = _read_manifest(members)
    hashes = manifest.pop("members")
    program = _read_program(members["program.json"], members[WEIGHTS])
    check_manifest(manifest, program)
    reference = None
    if "reference.npz" in members:
        reference = Reference.from_npz(members["reference.npz"], program, "reference.npz")
    files = {Path(name).stem: data for name, data in members.items() if name.endswith(".onnx")}
    return CompiledModel(
        program=program,
        manifest=manifest,
        graphs=StoredGraphs(files, members[WEIGHTS], where),
        reported=_read_report(members["report.json"]),
        reference=reference,
        keep_stages=any(
            name in members for name in ("graphs/imported.onnx", "graphs/integer.onnx")
        ),
        hashes=hashes,
    )


def _read_manifest(members: Mapping[str, bytes]) -> dict[str, Any]:
    if "manifest.json" not in members:
        raise BadInputError("no manifest.json; not a .snn file")
    manifest = _read_json(members["manifest.json"], "manifest.json")
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BadInputError(
            f"format version {version!r}; this snncc reads {SCHEMA_VERSION}; compile again"
        )
    if manifest.pop("sha256", None) != _own_hash(manifest):
        raise BadInputError("manifest.json has been changed; compile again")
    hashes = manifest.get("members")
    if not isinstance(hashes, dict):
        raise BadInputError("manifest.json lists no members")
    expected = {*hashes, "manifest.json"}
    required = {"program.json", "report.json", WEIGHTS}
    if missing := sorted((expected | required) - members.keys()):
        raise BadInputError(f"{', '.join(missing)} missing; copy the file again")
    if unknown := sorted(members.keys() - expected):
        raise BadInputError(f"{', '.join(unknown)} not in the manifest; not written by snncc")
    changed = [name for name, digest in hashes.items() if sha256(members[name]) != digest]
    if changed:
        raise BadInputError(f"{', '.join(sorted(changed))} changed since compiling; compile again")
    return manifest


def _read_json(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as e:
        raise BadInputError(f"{where}: not JSON ({e})") from e
    if not isinstance(found, dict):
        raise BadInputError(f"{where}: not a JSON object")
    return found


def _read_report(data: bytes) -> Report | None:
    """The report; None of a model that was made by hand, and has an empty one."""
    found = _read_json(data, "report.json")
    try:
        return Report.from_json(found) if found else None
    except BadInputError as e:
        raise e.within("report.json: ", "; compile again") from e


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _read_program(data: bytes, blob: bytes) -> Program:
    entries = _read_json(data, "program.json")
    arrays = entries.pop("arrays", None)
    if not isinstance(arrays, dict):
        raise BadInputError("program.json: no arrays")
    _check_values(entries, "program.json")
    steps = entries.get("timesteps")
    if type(steps) is not int or not 1 <= steps <= _MAX_TIMESTEPS:
        raise BadInputError(f"program.json: timesteps {steps!r}; 1..{_MAX_TIMESTEPS} are expected")
    read = {k: array_at(blob, v, _ARRAY_TYPES, f"array '{k}'") for k, v in arrays.items()}
    return Program.from_json(entries, read)


def _check_values(value: Any, where: str) -> None:
    """Numbers are integers, but for the fields that are real; there are no nulls and no bools."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not (key in _REAL_FIELDS and type(inner) is float):
                _check_values(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_values(inner, f"{where}.{index}")
    elif type(value) not in (int, str):
        raise BadInputError(f"{where}: {value!r} is not expected here")
