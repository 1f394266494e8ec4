"""Results of an evaluation in a file: a SQLite database with a row for each shard that is done.

A shard is written in one transaction, so that a run that is killed loses what was under way and
nothing else. The file is of one evaluation; what it is of stands in it and is compared.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from snncc.errors import BadInputError, Option, Words
from snncc.runtime.container import sha256
from snncc.runtime.evaluation.shards import Job, Shard
from snncc.runtime.report import encode
from snncc.system.damage import damaged, irregular, reason
from snncc.system.locks import Lock

__all__ = ["Store", "open_store"]

#: «snnc»: marks our files among SQLite's.
_ID = 0x736E6E63
_FORMAT = "1"
_TABLES = {
    "about": "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "shards": "CREATE TABLE shards (number INTEGER PRIMARY KEY, result TEXT NOT NULL, "
    "seconds REAL NOT NULL)",
}
#: What two runs on one store must have in common, and what it is called.
_SAME = {
    "artefact": "network",
    "version": "version of snncc",
    "engine": "engine",
    "compare": "comparison with integer",
    "energy": "models of energy",
    "limit": "limit",
    "samples": "number of samples",
    "stored_shape": "shape of a sample",
    "dtype": "type of the samples",
    "size": "size of shards",
}


class Store:
    """An open store; see ``open_store``.

    Attributes:
        path: The file.
        done: Shards whose results it holds, by number.
        seconds: What they took, each on its worker, added up.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, job: Job) -> None:
        self.path, self._job = path, job
        self._connection = connection
        self.done: dict[int, Shard] = {}
        self.seconds = 0.0

    def add(self, shard: Shard, seconds: float) -> None:
        """Keep the result of a shard, from now on whatever happens.

        Raises:
            BadInputError: The file cannot be written.
        """
        row = (shard.number, json.dumps(shard.to_json(), sort_keys=True), seconds)
        with _storing(self.path), self._connection:
            self._connection.execute("INSERT INTO shards VALUES (?, ?, ?)", row)
        self.done[shard.number] = shard
        self.seconds += seconds

    def begin(self, about: Mapping[str, str]) -> None:
        """Make the tables, all of them or none."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for table in _TABLES.values():
                self._connection.execute(table)
            self._connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            self._connection.execute(f"PRAGMA application_id = {_ID}")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def read(self) -> None:
        """Take in what earlier runs have done.

        Raises:
            BadInputError: The file is damaged.
        """
        rows = self._connection.execute("SELECT number, result, seconds FROM shards")
        for number, text, seconds in rows:
            shard = Shard.from_json(json.loads(text))
            first, last = self._job.bounds(number)
            if shard.number != number or shard.samples != last - first or shard.samples < 1:
                raise damaged(self.path, f"shard {number} is none of this data set")
            self.done[number] = shard
            self.seconds += float(seconds)


@contextmanager
def open_store(path: Path, job: Job, network: str, anew: bool = False) -> Iterator[Store]:
    """The store of an evaluation, made where there is none; one run at a time has it.

    Args:
        path: The file.
        job: What it is of.
        network: Name of the ``.snn`` file, for messages.
        anew: Begin again, whatever an earlier evaluation has left there.

    Raises:
        BadInputError: It is of something else, or no such file, or another run has it, or it cannot
            be written.
    """
    with _locked(path):
        with _storing(path):
            store = _begun(path, job, _about(job, network), anew)
        try:
            yield store
        finally:
            store.close()


def _begun(path: Path, job: Job, about: Mapping[str, str], anew: bool) -> Store:
    connection = _opened(path) if _is_there(path) else None
    if connection is not None and anew:
        connection.close()
        path.unlink()
        connection = None
    store = Store(path, _connected(path) if connection is None else connection, job)
    try:
        if connection is None or _is_empty(connection):
            store.begin(about)
        else:
            _require_same(path, connection, about)
            store.read()
    except BaseException:
        store.close()
        raise
    return store


def _about(job: Job, network: str) -> dict[str, str]:
    values = encode(job)
    return {
        "format": _FORMAT,
        "network": network,
        "data": job.data,
        **{name: json.dumps(values[name]) for name in _SAME},
    }


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else has the store; a run that was killed does not have it any more."""
    place = Path(os.path.realpath(path))  # links to one file are one store
    lock = Lock(place.with_name(f".{place.name}.lock"))
    with closing(lock):
        try:
            was_left = lock.take()
            if was_left is not None:
                lock.mark()
        except OSError as e:
            raise BadInputError(f"{path}: cannot be written ({reason(e)})") from e
        if was_left is None:
            raise BadInputError(
                f"{path}: {lock.holder} is evaluating into it; wait for it, or choose another store"
            )
        try:
            yield
        finally:
            with suppress(OSError):
                lock.remove()


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    """What SQLite raises becomes a message with the file's name."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as e:
        raise BadInputError(f"{path}: cannot be read or written ({e})") from e
    except (sqlite3.Error, ValueError) as e:
        raise damaged(path, str(e)) from e


def _is_there(path: Path) -> bool:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if kind := irregular(mode):
        raise BadInputError(f"{path}: is {kind}, not a store; choose another name")
    return True


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=1)


def _opened(path: Path) -> sqlite3.Connection:
    """A store that is there; no table, view or trigger of others' is looked at."""
    connection = _connected(path)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        if not (_is_ours(connection) or _is_empty(connection)):
            raise BadInputError(f"{path}: is there and not a store of snncc eval")
    except BaseException as e:
        connection.close()
        if isinstance(e, sqlite3.DatabaseError) and not isinstance(e, sqlite3.OperationalError):
            raise BadInputError(f"{path}: is there and not a store of snncc eval ({e})") from e
        raise
    return connection


def _is_ours(connection: sqlite3.Connection) -> bool:
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    return found == _ID and _tables(connection) == _TABLES


def _is_empty(connection: sqlite3.Connection) -> bool:
    """Whether a run was killed before it had made the tables."""
    return not _tables(connection)


def _tables(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, sql FROM sqlite_schema"))


def _require_same(path: Path, connection: sqlite3.Connection, about: Mapping[str, str]) -> None:
    """The store is of the same evaluation.

    Raises:
        BadInputError: It is not; with all that is different.
    """
    found = dict(connection.execute("SELECT name, value FROM about"))
    if found.get("format") != _FORMAT:
        raise BadInputError(f"{path}: format {found.get('format')}, this snncc reads {_FORMAT}")
    wrong = [_difference(name, found, about) for name in _SAME if found.get(name) != about[name]]
    if wrong:
        told = f"{path}: is of another evaluation: {'; '.join(wrong)}. Choose another "
        raise BadInputError(
            Words(told, Option("store"), " or begin anew with ", Option("overwrite", True))
        )


def _difference(name: str, found: Mapping[str, str], about: Mapping[str, str]) -> str:
    there, here = (_words(name, each) for each in (found, about))
    return f"{_SAME[name]} {there} there, {here} here"


def _words(name: str, about: Mapping[str, str]) -> str:
    value = json.loads(about.get(name, "null"))
    if name == "artefact":
        return f"{about.get('network')} ({str(value)[:12]})"
    if name == "energy":
        told = ((model["name"], sha256(json.dumps(model).encode())[:6]) for model in value)
        return ", ".join(f"{model} ({constants})" for model, constants in told) or "none"
    return str(value)
