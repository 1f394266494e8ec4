"""The graphs of an artefact: their weights live in the one blob, and they are parsed when asked.

ONNX external data with location ``weights.bin``; what is smaller than 256 bytes stays inline.
Earlier stages keep statistics of their weights only. ``onnx`` is imported when a graph is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, SnnccError
from snncc.ir.metadata import STATISTICS
from snncc.runtime.container import ALIGNMENT, Blob, sha256
from snncc.system.cache import own_cache
from snncc.system.locks import Lock
from snncc.system.process import shielded
from snncc.system.temporary import TemporaryFolder

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from google.protobuf.message import Message

    from snncc.ir.fed import FedGraph

__all__ = [
    "WEIGHTS",
    "LiveGraphs",
    "StoredGraphs",
    "externalised",
    "extract",
    "summarised",
]

WEIGHTS = "weights.bin"
_INLINE = 256
_PIECE = 1 << 20  # bytes compared at a time


# -- writing -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Weight:
    """An initializer on its way into a file.

    Attributes:
        name, data_type, dims: As in protobuf.
        data: Its bytes, little endian.
        values: Makes the array.
    """

    name: str
    data_type: int
    dims: Sequence[int]
    data: bytes
    values: Callable[[], npt.NDArray[Any]]


def externalised(model: onnx.ModelProto | ir.Model, blob: Blob) -> bytes:
    """The model with its weights in the blob, serialised; the model is left as it is."""
    shell, weights = _taken_apart(model)
    for weight in weights:
        new = shell.graph.initializer.add()
        new.name, new.data_type = weight.name, weight.data_type
        new.dims.extend(weight.dims)
        if len(weight.data) < _INLINE:
            new.raw_data = weight.data
        else:
            _refer(new, blob.add(weight.data), len(weight.data))
    return bytes(shell.SerializeToString(deterministic=True))


def summarised(model: onnx.ModelProto | ir.Model) -> bytes:
    """The model with its weights turned into inputs that carry their statistics, serialised."""
    from onnx.helper import make_tensor_value_info

    shell, weights = _taken_apart(model)
    inputs = {value.name for value in shell.graph.input}
    for w in weights:
        if len(w.data) < _INLINE:
            small = shell.graph.initializer.add(name=w.name, data_type=w.data_type, dims=w.dims)
            small.raw_data = w.data
            continue
        if w.name not in inputs:
            shell.graph.input.append(make_tensor_value_info(w.name, w.data_type, w.dims))
        info = next(value for value in shell.graph.input if value.name == w.name)
        info.metadata_props.add(key=STATISTICS, value=json.dumps(_statistics(w)))
    return bytes(shell.SerializeToString(deterministic=True))


def _statistics(weight: _Weight) -> dict[str, Any]:
    values = weight.values().astype(np.float64)
    names = ("min", "mean", "max", "std")
    figures = {name: float(getattr(values, name)()) for name in names}
    return {**figures, "sha256": sha256(weight.data)}


def _taken_apart(
    model: onnx.ModelProto | ir.Model,
) -> tuple[onnx.ModelProto, Iterator[_Weight]]:
    """A copy of the model without weights, and these, one at a time."""
    import onnx

    if isinstance(model, onnx.ModelProto):
        return _without_initializers(model), map(_weight_of, model.graph.initializer)
    from snncc.ir.graphs import to_proto

    copy = model.clone()
    copy.graph.initializers.clear()
    held = [(name, v.const_value) for name, v in model.graph.initializers.items()]
    return to_proto(copy), (_weight_in_memory(name, tensor) for name, tensor in held)


def _weight_in_memory(name: str, tensor: Any) -> _Weight:
    return _Weight(name, tensor.dtype.value, tensor.shape.numpy(), tensor.tobytes(), tensor.numpy)


def _weight_of(tensor: onnx.TensorProto) -> _Weight:
    from onnx.numpy_helper import to_array

    if tensor.external_data:
        raise SnnccError(f"weight '{tensor.name}' is in a file of its own; load it before saving")
    if tensor.HasField("raw_data"):
        data = tensor.raw_data
    else:
        array = to_array(tensor)
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    dims = tuple(tensor.dims)
    return _Weight(tensor.name, tensor.data_type, dims, data, lambda: to_array(tensor))


def _refer(tensor: onnx.TensorProto, offset: int, length: int) -> None:
    tensor.data_location = tensor.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    shell = onnx.ModelProto()
    _copy_fields(model, shell, "graph")
    _copy_fields(model.graph, shell.graph, "initializer")
    return shell


def _copy_fields(source: Message, target: Message, skipped: str) -> None:
    """Copy all fields but one, so that weights are not copied where they are not wanted."""
    for field, value in source.ListFields():
        if field.name == skipped:
            continue
        if hasattr(value, "CopyFrom"):
            getattr(target, field.name).CopyFrom(value)
        elif hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        else:
            setattr(target, field.name, value)


# -- in memory -----------------------------------------------------------------------------


class LiveGraphs(Mapping[str, "onnx.ModelProto"]):
    """Stage -> graph of a network just compiled; weights are where the compiler has them.

    Args:
        stages: Stage -> graph; or ``summarised``, whose weights need not stay in memory.
    """

    def __init__(self, stages: Mapping[str, ir.Model | bytes]) -> None:
        self._stages = dict(stages)

    def __getitem__(self, stage: str) -> onnx.ModelProto:
        import onnx

        from snncc.ir.graphs import to_proto

        found = self._stages[stage]
        if not isinstance(found, bytes):
            return to_proto(found)
        summary = onnx.ModelProto()
        summary.ParseFromString(found)
        return summary

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    def source(self, stage: str) -> ir.Model | bytes:
        """The graph as it was given."""
        return self._stages[stage]

    def fed(self, stage: str) -> FedGraph:
        """The graph apart from its weights."""
        from snncc.ir.fed import FedGraph, fed

        found = self._stages[stage]
        return FedGraph(self[stage]) if isinstance(found, bytes) else fed(found)


# -- reading -------------------------------------------------------------------------------


class StoredGraphs(Mapping[str, "onnx.ModelProto"]):
    """Stage -> graph, parsed and checked when it is asked for.

    Args:
        files: Stage -> serialised graph.
        blob: The weights.
        where: The artefact's name, for messages.
    """

    def __init__(self, files: Mapping[str, bytes], blob: bytes, where: str) -> None:
        self.files, self.blob, self.where = dict(files), blob, where
        self._loaded: dict[str, onnx.ModelProto] = {}

    def __getitem__(self, stage: str) -> onnx.ModelProto:
        if stage not in self._loaded:
            model = self.light(stage)
            self._fill_in(model)
            self._loaded[stage] = model
        return self._loaded[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def fed(self, stage: str) -> FedGraph:
        """The graph apart from its weights, which are read where they are in the blob.

        Raises:
            BadInputError: See ``light``.
        """
        from snncc.ir.fed import FedGraph

        model, weights = self.light(stage), {}
        for tensor in [t for t in model.graph.initializer if t.external_data]:
            weights[tensor.name] = self._values(tensor)
            model.graph.initializer.remove(tensor)
        self._fill_in(model)
        return FedGraph(model, weights)

    def whole(self, stage: str) -> tuple[onnx.ModelProto, ir.Model]:
        """The graph as it is stored, and with its weights, which stay where they are in the blob.

        Raises:
            BadInputError: See ``light``; or there is no such graph.
        """
        import onnx_ir as ir

        if stage not in self.files:
            raise BadInputError(f"{self.where}: no graph '{stage}'")
        proto = self.light(stage)
        model = ir.from_proto(proto)
        for tensor in [t for t in proto.graph.initializer if t.external_data]:
            values = ir.Tensor(self._values(tensor), name=tensor.name)
            model.graph.initializers[tensor.name].const_value = values
        return proto, model

    def _values(self, tensor: onnx.TensorProto) -> npt.NDArray[Any]:
        """A weight, where it is in the blob."""
        from onnx.helper import tensor_dtype_to_np_dtype

        offset, _ = _place(tensor)
        dtype = np.dtype(tensor_dtype_to_np_dtype(tensor.data_type)).newbyteorder("<")
        flat = np.frombuffer(self.blob, dtype, prod(tensor.dims), offset)
        return np.asarray(flat.reshape(tensor.dims))

    def _fill_in(self, model: onnx.ModelProto) -> None:
        """Weights that the model refers to become its own."""
        for tensor in _external(model):
            offset, length = _place(tensor)
            tensor.raw_data = self.blob[offset : offset + length]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")

    def light(self, stage: str) -> onnx.ModelProto:
        """A fresh copy of the graph, its weights still in the blob.

        Raises:
            BadInputError: Not an ONNX graph, or it refers to data outside the blob.
        """
        import onnx
        from google.protobuf.message import DecodeError

        where = f"{self.where}: graph '{stage}'"
        model = onnx.ModelProto()
        try:
            model.ParseFromString(self.files[stage])
            external = list(_external(model))
        except DecodeError as e:
            raise BadInputError(f"{where}: not an ONNX model ({e})") from e
        for tensor in external:
            _check_place(tensor, len(self.blob), where)
        return model


def _external(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor, wherever it is in the model, whose data is elsewhere."""
    if hasattr(message, "external_data") and (message.external_data or message.data_location):
        yield message
    for field, value in message.ListFields():
        is_one = isinstance(value, (str, bytes)) or hasattr(value, "ListFields")
        if field.message_type is not None:
            for item in [value] if is_one else value:
                yield from _external(item)
        elif field.type == field.TYPE_STRING:
            _check_text([value] if is_one else value)


def _check_text(texts: Iterable[str | bytes]) -> None:
    """Refuse what is not UTF-8: protobuf hands it over as bytes."""
    from google.protobuf.message import DecodeError

    if not all(isinstance(text, str) for text in texts):
        raise DecodeError("a text is not UTF-8")


def _place(tensor: onnx.TensorProto) -> tuple[int, int]:
    place = {entry.key: entry.value for entry in tensor.external_data}
    return int(place["offset"]), int(place["length"])


def _check_place(tensor: onnx.TensorProto, size: int, where: str) -> None:
    from onnx.helper import tensor_dtype_to_np_dtype

    keys = sorted(entry.key for entry in tensor.external_data)
    location = next((e.value for e in tensor.external_data if e.key == "location"), None)
    if location != WEIGHTS or keys != ["length", "location", "offset"]:
        raise BadInputError(f"{where}: weight '{tensor.name}' is outside the file ({location!r})")
    try:
        offset, length = _place(tensor)
        itemsize = tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (ValueError, KeyError) as e:
        raise BadInputError(f"{where}: weight '{tensor.name}' is malformed") from e
    needed = itemsize * prod(tensor.dims)
    fits = 0 <= offset <= offset + length <= size and offset % ALIGNMENT == 0
    if not fits or min(tensor.dims, default=0) < 0 or length != needed:
        raise BadInputError(f"{where}: weight '{tensor.name}' is not in the weights")


# -- files for ONNX Runtime ----------------------------------------------------------------


def extract(files: Mapping[str, bytes], key: str) -> tuple[Path, TemporaryFolder | None]:
    """A folder with these files: in the cache, where it stays, or else a temporary one.

    Args:
        files: Name -> content.
        key: Hash of all contents; files of one key are never different.

    Returns:
        The folder, and its owner if it is temporary: it goes when the owner goes.
    """
    try:
        folder = own_cache() / key
        if not _holds(folder, files):
            _complete(folder, files)
        return folder, None
    except OSError:  # a cache that cannot be written, or is not ours, is no reason to fail
        owner = TemporaryFolder("graphs")
        for name, data in files.items():
            (owner.path / name).write_bytes(data)
        return owner.path, owner


#: Folders whose files have been compared in this process.
_compared: set[Path] = set()


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Whether exactly these files are there; once a process has compared them, sizes suffice."""
    if not _is_folder(folder) or {entry.name for entry in folder.iterdir()} != set(files):
        return False
    is_known = folder in _compared
    if all(_is_file(folder / name, data, is_known) for name, data in files.items()):
        _compared.add(folder)
        return True
    return False


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path, data: bytes, is_known: bool) -> bool:
    """Whether a regular file of just these bytes is there, and no link."""
    if not stat.S_ISREG(path.lstat().st_mode) or path.stat().st_size != len(data):
        return False
    if is_known:
        return True
    view = memoryview(data)
    with open(path, "rb") as file:
        parts = range(0, len(data), _PIECE)
        return all(file.read(_PIECE) == view[at : at + _PIECE] for at in parts)


def _complete(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder hold just these files; processes that do the same take turns.

    Every file is replaced at once, so that whoever has checked the folder can open it meanwhile.
    """
    _sweep(folder.parent)
    with closing(Lock(folder.with_name(f".{folder.name}.lock"))) as lock:
        lock.take(wait=True)
        try:
            lock.mark()
            if not _holds(folder, files):  # else another process has been faster
                _replace(folder, files)
            _compared.add(folder)
        finally:
            with shielded(), suppress(OSError):
                lock.remove()


def _replace(folder: Path, files: Mapping[str, bytes]) -> None:
    if not _is_folder(folder):
        folder.unlink(missing_ok=True)
        folder.mkdir(mode=0o700)
    for name in {entry.name for entry in folder.iterdir()} - set(files):
        _remove(folder / name)
    for name, data in files.items():
        part = folder / f".{name}.{os.getpid()}.part"
        part.write_bytes(data)
        if _is_folder(folder / name):
            _remove(folder / name)
        os.replace(part, folder / name)


def _sweep(cache: Path) -> None:
    """Remove what killed processes have left, whichever graphs they were at."""
    for path in cache.glob(f".{'?' * 64}.lock"):
        with closing(Lock(path)) as lock:
            if lock.take() is not None:
                for part in (cache / path.stem[1:]).glob(".*.part"):
                    part.unlink()
                lock.remove()


def _remove(path: Path) -> None:
    shutil.rmtree(path) if _is_folder(path) else path.unlink()
