"""Files of the small network: written, forged with hashes that are right, written again."""

import hashlib
import json

from snncc.errors import BadInputError
from snncc.runtime.artifact import load
from snncc.runtime.container import write_members

__all__ = ["forged", "refusal", "repacked", "written"]


def written(path, members):
    with open(path, "wb") as file:
        write_members(file, members)
    return path


def forged(path, members):
    """A file whose hashes are right: a consistent hand-made one."""
    manifest = json.loads(members["manifest.json"])
    parts = {k: v for k, v in members.items() if k != "manifest.json"}
    manifest["members"] = {k: hashlib.sha256(v).hexdigest() for k, v in parts.items()}
    manifest.pop("sha256")
    text = json.dumps(manifest, sort_keys=True, indent=1).encode()
    manifest["sha256"] = hashlib.sha256(text).hexdigest()
    return written(path, {**parts, "manifest.json": json.dumps(manifest).encode()})


def repacked(path, tmp_path):
    return load(path).save(tmp_path / "again.snn", overwrite=True).read_bytes()


def refusal(path):
    try:
        load(path)
    except BadInputError as error:
        return str(error)
    return None
