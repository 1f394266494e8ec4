"""Files that want to run code, write elsewhere or read what is not theirs.

Each is made in a folder of its own; what it wants is the directory ``owned`` beside that folder.
"""

from __future__ import annotations

import copyreg
import io
import json
import os
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import small_model
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from snncc.runtime.evaluation.store import _ID, _TABLES

__all__ = ["HOSTILE", "Hostile", "Wish"]

SHAPE = (1, 6, 6)


class Wish:
    """What a pickle does when it is read."""

    def __init__(self, owned: Path) -> None:
        self.owned = str(owned)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.owned,)


def net() -> nn.Module:
    """As ``--arch`` finds it here."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Hardtanh(0, 4), Whole(), nn.Flatten(), nn.Linear(32, 3)
    )


class Whole(nn.Module):
    """Rounds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.round()


@dataclass(frozen=True)
class Hostile:
    """A file and the command that reads it.

    Attributes:
        make: Writes into a folder; the second path is what the file wants to make.
        args: Of the command line, in that folder.
        trusted: Options with which the file gets what it wants: it is a real one.
    """

    make: Callable[[Path, Path], None]
    args: tuple[str, ...]
    trusted: tuple[str, ...] = ()


ARCH = ("--arch", f"{__file__}:net", "--input-shape", "1,6,6", "--input-range", "0,1")
COMPILE_PT = ("compile", "net.pt", *ARCH, "-o", "o.snn")
TRUST = ("--trust-pickle",)


# -- checkpoints -----------------------------------------------------------------------------


def _saved(**settings: Any) -> Callable[[Path, Path], None]:
    def make(folder: Path, owned: Path) -> None:
        torch.save(
            {"model": net().state_dict(), "extra": Wish(owned)}, folder / "net.pt", **settings
        )

    return make


def _pickled(protocol: int) -> Callable[[Path, Path], None]:
    def make(folder: Path, owned: Path) -> None:
        content = {**net().state_dict(), "extra": Wish(owned)}
        (folder / "net.pt").write_bytes(pickle.dumps(content, protocol=protocol))

    return make


def _key(folder: Path, owned: Path) -> None:
    """A tensor's name is an object that is made when it is read."""
    text = f"cos\nmkdir\n(V{owned}\ntR."
    (folder / "net.pt").write_bytes(text.encode())


def _module(folder: Path, owned: Path) -> None:
    whole = net()
    whole.register_buffer("kept", torch.zeros(1))
    whole.__dict__["wish"] = Wish(owned)
    torch.save(whole, folder / "net.pt")


def _extension(folder: Path, owned: Path) -> None:
    """An extension code in place of a global's name."""
    copyreg.add_extension("os", "mkdir", 200)
    try:
        (folder / "net.pt").write_bytes(b"\x80\x02\x82\xc8X" + _text(owned) + b"\x85R.")
    finally:
        copyreg.remove_extension("os", "mkdir", 200)


def _text(path: Path) -> bytes:
    encoded = str(path).encode()
    return len(encoded).to_bytes(4, "little") + encoded


def _tar(folder: Path, owned: Path) -> None:
    """The oldest format, a tar archive with pickles in it."""
    with tarfile.open(folder / "net.pt", "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps(Wish(owned), protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _elsewhere(folder: Path, owned: Path) -> None:
    """A member that lies outside the archive's folder."""
    torch.save(net().state_dict(), folder / "net.pt")
    with zipfile.ZipFile(folder / "net.pt", "a") as archive:
        archive.writestr(f"../{owned.name}", "x")
        archive.writestr(str(owned), "x")


# -- programs of torch.export ----------------------------------------------------------------


def _program(change: Callable[[str, bytes, Path], bytes]) -> Callable[[Path, Path], None]:
    """A saved program in which ``change`` gets to see every member."""

    def make(folder: Path, owned: Path) -> None:
        batch = torch.export.Dim("N", min=2)
        found = torch.export.export(
            net().eval(), (torch.rand(2, *SHAPE),), dynamic_shapes=({0: batch},)
        )
        torch.export.save(found, folder / "plain.pt2")
        with (
            zipfile.ZipFile(folder / "plain.pt2") as plain,
            zipfile.ZipFile(folder / "net.pt2", "w") as archive,
        ):
            for info in plain.infolist():
                archive.writestr(info, change(info.filename, plain.read(info), owned))
        (folder / "plain.pt2").unlink()

    return make


def _torch_pickle(owned: Path) -> bytes:
    stream = io.BytesIO()
    torch.save(Wish(owned), stream)
    return stream.getvalue()


def _samples(name: str, data: bytes, owned: Path) -> bytes:
    return _torch_pickle(owned) if name.endswith("sample_inputs/model.pt") else data


def _weights(name: str, data: bytes, owned: Path) -> bytes:
    if name.endswith("model_weights_config.json"):
        return data.replace(b'"use_pickle": false', b'"use_pickle": true')
    return _torch_pickle(owned) if "/weights/weight_" in name else data


def _expression(name: str, data: bytes, owned: Path) -> bytes:
    if not name.endswith("models/model.json"):
        return data
    wish = f"__import__('os').mkdir('{owned}') or Symbol('s31')"
    model = json.loads(data)

    def replaced(part: Any) -> Any:
        if isinstance(part, dict):
            return {k: wish if k == "expr_str" else replaced(v) for k, v in part.items()}
        return [replaced(v) for v in part] if isinstance(part, list) else part

    return json.dumps(replaced(model)).encode()


# -- ONNX files ------------------------------------------------------------------------------


def _onnx(change: Callable[[onnx.ModelProto, Path, Path], None]) -> Callable[[Path, Path], None]:
    def make(folder: Path, owned: Path) -> None:
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy")
        weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["u"]),
            helper.make_node("Round", ["u"], ["y"]),
        ]
        proto = helper.make_model(
            helper.make_graph(nodes, "g", [x], [y], [weight]),
            opset_imports=[helper.make_opsetid("", 21)], ir_version=10,
        )  # fmt: skip
        change(proto, folder, owned)
        (folder / "net.onnx").write_bytes(proto.SerializeToString())

    return make


def _outside(location: Callable[[Path], str]) -> Callable[[onnx.ModelProto, Path, Path], None]:
    """Weights in a file that is not the model's."""

    def change(proto: onnx.ModelProto, folder: Path, owned: Path) -> None:
        (owned.parent / "secret.bin").write_bytes(bytes(64))
        (tensor,) = proto.graph.initializer
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location(owned.parent)), ("length", "64")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


def _through_a_link(proto: onnx.ModelProto, folder: Path, owned: Path) -> None:
    _outside(lambda _: "weights.bin")(proto, folder, owned)
    (folder / "weights.bin").symlink_to(owned.parent / "secret.bin")


def _names(proto: onnx.ModelProto, folder: Path, owned: Path) -> None:
    """Names that are paths, of nodes and values."""
    for node in proto.graph.node:
        node.name = f"../../{owned.name}"
    for node in proto.graph.node:
        node.output[:] = [n if n == "y" else f"../{owned.name}" for n in node.output]
        node.input[:] = [f"../{owned.name}" if n == "u" else n for n in node.input]


# -- data ------------------------------------------------------------------------------------


def _with_net(write: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    def make(folder: Path, owned: Path) -> None:
        torch.save(net().state_dict(), folder / "net.pt")
        write(folder, owned)

    return make


def _object_npy(folder: Path, owned: Path) -> None:
    np.save(folder / "data.npy", np.array([Wish(owned)], dtype=object), allow_pickle=True)


def _object_npz(folder: Path, owned: Path) -> None:
    np.savez(folder / "data.npz", x=np.array([Wish(owned)], dtype=object))


def _pickle_as_npy(folder: Path, owned: Path) -> None:
    (folder / "data.npy").write_bytes(pickle.dumps(Wish(owned)))


def _data(name: str) -> tuple[str, ...]:
    arch = ARCH[:4]
    return ("compile", "net.pt", *arch, "--calibration", name, "-o", "o.snn")


# -- compiled networks -----------------------------------------------------------------------


def _snn(folder: Path, owned: Path) -> None:
    """An archive with members outside its folder, and pickles in place of arrays."""
    with zipfile.ZipFile(folder / "net.snn", "w") as archive:
        for name in ("manifest.json", "program.json", f"../{owned.name}", str(owned)):
            archive.writestr(name, pickle.dumps(Wish(owned)))


# -- data sets, and stores of evaluations ----------------------------------------------------


def _evaluated(write: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    def make(folder: Path, owned: Path) -> None:
        small_model.compiled().save(folder / "net.snn")
        np.savez(folder / "x.npz", x=small_model.samples(), y=np.zeros(5, int))
        write(folder, owned)

    return make


def _objects(folder: Path, owned: Path) -> None:
    np.savez(folder / "x.npz", x=np.array([Wish(owned)], dtype=object), y=np.zeros(1, int))


def _tar_of_links(folder: Path, owned: Path) -> None:
    """What would be unpacked elsewhere, and what leads elsewhere."""
    with tarfile.open(folder / "x.tar", "w") as archive:
        for name in (str(owned), f"../{owned.name}", "0.png"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)


def _tar_of_names(folder: Path, owned: Path) -> None:
    with tarfile.open(folder / "x.tar", "w") as archive:
        for suffix in ("png", "cls"):
            info = tarfile.TarInfo(f"{owned}.{suffix}")
            info.size = 5
            archive.addfile(info, io.BytesIO(b"12345"))


def _arrow(folder: Path, owned: Path) -> None:
    """A saved data set whose images are paths, and whose state names files elsewhere."""
    (folder / "x").mkdir()
    state = {"_data_files": [{"filename": f"../../{owned.name}"}], "_split": f"../{owned.name}"}
    (folder / "x" / "state.json").write_text(json.dumps(state))
    (folder / "x" / "dataset_info.json").write_text(json.dumps({"builder_name": f"../{owned}"}))


def _store(folder: Path, owned: Path) -> None:
    """A store that does more than it is read for."""
    with closing(sqlite3.connect(folder / "s")) as file:
        for table in _TABLES.values():
            file.execute(table)
        file.execute(f"PRAGMA application_id = {_ID}")
        file.execute("CREATE TRIGGER t AFTER INSERT ON shards BEGIN DELETE FROM about; END")
        file.execute(f"CREATE VIEW v AS SELECT load_extension('{owned}')")


def _eval(data: str) -> tuple[str, ...]:
    return ("eval", "net.snn", "--data", data, "--store", "s", "--no-compare")


HOSTILE: dict[str, Hostile] = {
    "pt: zip": Hostile(_saved(), COMPILE_PT, TRUST),
    "pt: legacy": Hostile(_saved(_use_new_zipfile_serialization=False), COMPILE_PT, TRUST),
    **{f"pt: pickle {n}": Hostile(_pickled(n), COMPILE_PT) for n in range(6)},
    "pt: plain text": Hostile(_key, COMPILE_PT),
    "pt: module": Hostile(_module, COMPILE_PT, TRUST),
    "pt: extension code": Hostile(_extension, COMPILE_PT),
    "pt: tar": Hostile(_tar, COMPILE_PT, TRUST),
    "pt: member elsewhere": Hostile(_elsewhere, COMPILE_PT),
    **{
        f"pt2 {command}: {name}": Hostile(
            _program(change),
            (command, "net.pt2", *(("-o", "o.snn") if command == "compile" else ())),
            TRUST if name != "weights" else (),
        )
        for name, change in (
            ("samples", _samples),
            ("weights", _weights),
            ("expression", _expression),
        )
        for command in ("check", "compile")
    },
    **{
        f"onnx: {name}": Hostile(
            _onnx(change), ("compile", "net.onnx", "--dump-ir", "ir", "-o", "o.snn")
        )
        for name, change in (
            ("weights above", _outside(lambda _: "../secret.bin")),
            ("weights anywhere", _outside(lambda folder: str(folder / "secret.bin"))),
            ("weights behind a link", _through_a_link),
            ("names", _names),
        )
    },
    "npy: objects": Hostile(_with_net(_object_npy), _data("data.npy")),
    "npz: objects": Hostile(_with_net(_object_npz), _data("data.npz")),
    "npy: pickle": Hostile(_with_net(_pickle_as_npy), _data("data.npy")),
    "eval: objects": Hostile(_evaluated(_objects), _eval("x.npz")),
    "eval: tar of links": Hostile(_evaluated(_tar_of_links), _eval("x.tar")),
    "eval: tar of names": Hostile(_evaluated(_tar_of_names), _eval("x.tar")),
    **({"eval: arrow": Hostile(_evaluated(_arrow), _eval("x"))} if find_spec("datasets") else {}),
    "eval: store": Hostile(_evaluated(_store), _eval("x.npz")),
    **{
        f"snn: {command}": Hostile(_snn, (command, "net.snn"))
        for command in ("inspect", "verify", "run", "export --to lava -o out")
    },
}
