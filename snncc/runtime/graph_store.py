"""The graphs of an artefact: their weights live in the one blob, and they are parsed when asked.

ONNX external data with location ``weights.bin``; what is smaller than 256 bytes stays inline.
Earlier stages keep statistics of their weights only. ``onnx`` is imported when a graph is touched.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snncc.cache import cache_folder
from snncc.errors import BadInputError, SnnccError
from snncc.runtime.container import ALIGNMENT, Blob, sha256

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from google.protobuf.message import Message

    from snncc.ir.fed import FedGraph

__all__ = [
    "WEIGHTS",
    "WEIGHTS_KEY",
    "LiveGraphs",
    "StoredGraphs",
    "externalised",
    "extract",
    "summarised",
]

WEIGHTS = "weights.bin"
#: Metadata key under which a graph input that stands for a weight has its statistics.
WEIGHTS_KEY = "snncc.weights"
_INLINE = 256


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
        info.metadata_props.add(key=WEIGHTS_KEY, value=json.dumps(_statistics(w)))
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


def extract(
    files: Mapping[str, bytes], key: str
) -> tuple[Path, tempfile.TemporaryDirectory[str] | None]:
    """A folder with these files: in the cache, where it stays, or else a temporary one.

    Args:
        files: Name -> content.
        key: Hash of all contents; files of one key are never different.

    Returns:
        The folder, and its owner if it is temporary: it goes when the owner goes.
    """
    folder = cache_folder() / key
    try:
        if not _holds(folder, files):
            _fill(folder, files)
        return folder, None
    except OSError:  # a cache that cannot be written is no reason to fail
        owner = tempfile.TemporaryDirectory(prefix="snncc-")
        _write_all(Path(owner.name), files)
        return Path(owner.name), owner


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Whether the folder is complete; sizes suffice, as folders appear only when they are."""
    paths = ((folder / name, len(data)) for name, data in files.items())
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name[:16]}.", dir=folder.parent))
    try:
        _write_all(part, files)
        try:
            part.rename(folder)
        except OSError:
            if not _holds(folder, files):  # else another process was faster
                shutil.rmtree(folder)
                part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)
