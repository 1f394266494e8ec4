"""What is in a file that torch.save has written, without running its code; or why not."""

from __future__ import annotations

import argparse
import errno
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from snncc.errors import BadInputError, Fault, Option, SnnccError, Words
from snncc.system.damage import damaged, open_regular, require_whole_zip

__all__ = ["load_content", "require_bounded"]

#: Bytes that come out of a file: these, and so many times what it has. Members may be compressed,
#: and a tensor may repeat one number or share its storage with others.
UNPACKED_BYTES, TIMES_STORED = 2**28, 16

_SAVE = "torch.save(net.state_dict(), path)"
_ZIP = b"PK\x03\x04"
#: What a file begins with that has no zip around it; and how many pickles are before its
#: tensors: magic number, protocol, system, state.
_LEGACY, _PICKLES = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", 4
_WANTED = re.compile(r"(?:GLOBAL|unrecognized function|but got) (\S+(?: \S+>)?)")


def load_content(path: Path, trust_pickle: bool = False) -> Any:
    """What was saved, tensors on the CPU.

    Args:
        path: The file.
        trust_pickle: Let it run code, as whole pickled modules need.

    Raises:
        BadInputError: It cannot be read, is cut off or damaged, is no such file, or wants to run
            code without being trusted.
    """
    head = b""
    try:
        head = _head(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats; what does not load is an error below
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except SnnccError:
        raise
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise damaged(path, "it points to places outside itself") from error
        raise BadInputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # hostile bytes, and with trust_pickle anything the file runs
        raise _not_loaded(path, error, head, trust_pickle) from error


def _head(path: Path) -> bytes:
    """The first bytes; a zip that is cut off is refused."""
    with open_regular(path) as file:
        require_whole_zip(file, path)
        head = file.read(len(_LEGACY))
        if head.startswith(_ZIP):
            with zipfile.ZipFile(file) as archive:
                sizes = {info.filename: info.file_size for info in archive.infolist()}
            require_bounded(path, sizes, "its members")
    return head


def require_bounded(path: Path, sizes: Mapping[str, int], what: str) -> None:
    """What comes out of a file is not much more than what is in it.

    Args:
        path: The file.
        sizes: Bytes in memory, by name.
        what: What these are, for the message.

    Raises:
        BadInputError: It is; with the largest.
    """
    stored, total = path.stat().st_size, sum(sizes.values())
    most = UNPACKED_BYTES + TIMES_STORED * stored
    if total > most:
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:5]
        largest = [name for name in largest if sizes[name] > total / 100]
        raise BadInputError(
            f"{path}: {what} take {total / 2**20:,.0f} MiB and the file has {stored / 2**20:,.3g}, "
            f"for which {most / 2**20:,.0f} are the most; save plain tensors, each for itself",
            [Fault(f"takes {sizes[name] / 2**20:,.0f} MiB", node=name) for name in largest],
        )


def _not_loaded(path: Path, error: Exception, head: bytes, trust_pickle: bool) -> BadInputError:
    text = str(error)
    wanted = _WANTED.search(text) if isinstance(error, pickle.UnpicklingError) else None
    if wanted and not (head == _LEGACY and _is_cut_pickle(path)):
        told = f"{path}: the pickle wants to run code, {wanted[1]}; save net.state_dict() instead, "
        hint = ("or pass ", Option("trust_pickle", True), " if you trust whoever made the file")
        return BadInputError(Words(told, *hint))
    first = text.partition("\n")[0].partition(". ")[0]
    why = f"{type(error).__name__}: {first}" if first else type(error).__name__
    begins_as_torch = _LEGACY.startswith(head) or head.startswith(_ZIP)
    if begins_as_torch and (not trust_pickle or _is_end_of_file(error)):
        return damaged(path, why)
    if trust_pickle:
        return BadInputError(f"{path}: cannot be unpickled ({why}); save it with {_SAVE}")
    return damaged(path, why, f"not written by {_SAVE}")


def _is_cut_pickle(path: Path) -> bool:
    """Whether one of the pickles before the tensors has no end, perhaps in a class's name."""
    try:
        with open(path, "rb") as file:
            for _ in range(_PICKLES):
                deque(pickletools.genops(file), maxlen=0)
    except Exception:  # nearly anything on damaged bytes
        return True
    return False


def _is_end_of_file(error: Exception) -> bool:
    return isinstance(error, (EOFError, pickle.UnpicklingError)) or "unexpected EOF" in str(error)
