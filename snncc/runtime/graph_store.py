"""The graphs of an artefact: their weights live in the one blob, and they are parsed when asked.

ONNX external data with location ``weights.bin``; what is smaller than 256 bytes stays inline.
Earlier stages keep statistics of their weights only. ``onnx`` is imported when a graph is touched.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snncc.cache import cache_folder
from snncc.errors import BadInputError, SnnccError
from snncc.runtime.container import ALIGNMENT, Blob, sha256

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message

__all__ = ["WEIGHTS", "WEIGHTS_KEY", "StoredGraphs", "externalised", "extract", "summarised"]

WEIGHTS = "weights.bin"
#: Metadata key under which a graph input that stands for a weight has its statistics.
WEIGHTS_KEY = "snncc.weights"
_INLINE = 256


# -- writing -------------------------------------------------------------------------------


def externalised(model: onnx.ModelProto, blob: Blob) -> bytes:
    """The model with its weights in the blob, serialised; the model is left as it is."""
    shell = _without_initializers(model)
    for tensor in model.graph.initializer:
        new = shell.graph.initializer.add()
        data = _raw(tensor)
        new.name, new.data_type = tensor.name, tensor.data_type
        new.dims.extend(tensor.dims)
        if len(data) < _INLINE:
            new.raw_data = data
        else:
            _refer(new, blob.add(data), len(data))
    return bytes(shell.SerializeToString(deterministic=True))


def summarised(model: onnx.ModelProto) -> bytes:
    """The model with its weights turned into inputs that carry their statistics, serialised."""
    from onnx.helper import make_tensor_value_info

    shell = _without_initializers(model)
    inputs = {value.name for value in shell.graph.input}
    for tensor in model.graph.initializer:
        data = _raw(tensor)
        if len(data) < _INLINE:
            shell.graph.initializer.add().CopyFrom(tensor)
            continue
        if tensor.name not in inputs:
            shape = list(tensor.dims)
            shell.graph.input.append(make_tensor_value_info(tensor.name, tensor.data_type, shape))
        info = next(value for value in shell.graph.input if value.name == tensor.name)
        info.metadata_props.add(key=WEIGHTS_KEY, value=json.dumps(_statistics(tensor, data)))
    return bytes(shell.SerializeToString(deterministic=True))


def _statistics(tensor: onnx.TensorProto, data: bytes) -> dict[str, Any]:
    from onnx.numpy_helper import to_array

    values = to_array(tensor).astype(np.float64)
    names = ("min", "mean", "max", "std")
    figures = {name: float(getattr(values, name)()) for name in names}
    return {**figures, "sha256": sha256(data)}


def _raw(tensor: onnx.TensorProto) -> bytes:
    from onnx.numpy_helper import to_array

    if tensor.external_data:
        raise SnnccError(f"weight '{tensor.name}' is in a file of its own; load it before saving")
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    array = to_array(tensor)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


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
            for tensor in _external(model):
                offset, length = _place(tensor)
                tensor.raw_data = self.blob[offset : offset + length]
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
            self._loaded[stage] = model
        return self._loaded[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

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
