"""Files that are cut off, changed or no artefacts at all are refused."""

import struct
import zipfile

import pytest
from artifact_files import refusal, repacked, written

from snncc.errors import BadInputError
from snncc.runtime.artifact import load


def test_a_truncated_file_is_refused_wherever_it_ends(saved, tmp_path):
    data = saved.read_bytes()
    cut = tmp_path / "cut.snn"
    for size in {*range(0, len(data), 211), *range(len(data) - 30, len(data))}:
        cut.write_bytes(data[:size])
        with pytest.raises(BadInputError, match=r"cut\.snn: cut off or damaged"):
            load(cut)


def test_a_flipped_byte_is_refused_or_does_not_matter(saved, tmp_path):
    data = saved.read_bytes()
    flipped = tmp_path / "flipped.snn"
    directory = data.rindex(b"PK\x05\x06")
    places = {*range(0, len(data), 97), *range(0, 120, 3), *range(directory - 300, len(data), 5)}
    refused = 0
    for place in sorted(places):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        flipped.write_bytes(changed)
        error = refusal(flipped)
        if error is None:
            assert repacked(flipped, tmp_path) == data
        else:
            assert error.startswith(str(flipped))
            refused += 1
    assert refused > len(places) // 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello", "not a zip file"),
        (b"PK\x03\x04 and no more", "directory, at its end, is not there"),
        (b"\x80\x04\x95", "not a zip file"),
    ],
)
def test_what_is_no_artefact_is_refused(tmp_path, data, message):
    path = tmp_path / "a.snn"
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=message):
        load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(BadInputError, match="cannot be read"):
            load(path)


@pytest.mark.parametrize("name", ["program.json", "report.json", "weights.bin", "reference.npz"])
def test_a_member_that_was_edited_or_left_out_is_named(members, tmp_path, name):
    with pytest.raises(BadInputError, match=f"{name} changed since compiling"):
        load(written(tmp_path / "a.snn", {**members, name: members[name] + b" "}))
    with pytest.raises(BadInputError, match=f"{name} missing"):
        load(written(tmp_path / "a.snn", {k: v for k, v in members.items() if k != name}))


def test_an_edited_manifest_and_strange_members_are_refused(members, tmp_path):
    path = tmp_path / "a.snn"
    edited = members["manifest.json"].replace(b'"ticks": 4', b'"ticks": 5')
    with pytest.raises(BadInputError, match=r"manifest\.json has been changed"):
        load(written(path, {**members, "manifest.json": edited}))
    newer = members["manifest.json"].replace(b'"schema_version": 1', b'"schema_version": 2')
    with pytest.raises(BadInputError, match="format version 2; this snncc reads 1"):
        load(written(path, {**members, "manifest.json": newer}))
    with pytest.raises(BadInputError, match=r"evil\.py not in the manifest"):
        load(written(path, {**members, "evil.py": b"print()"}))
    with pytest.raises(BadInputError, match=r"no manifest\.json"):
        load(written(path, {"weights.bin": b""}))


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "graphs/../../evil", "a\\..\\b", "C:/x y", "graphs/", "./a"]
)
def test_names_that_leave_the_file_are_refused(members, tmp_path, name):
    with pytest.raises(BadInputError, match="refused member name"):
        load(written(tmp_path / "a.snn", {**members, name: b"x"}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bombs_and_duplicates_are_refused(members, tmp_path):
    path = tmp_path / "a.snn"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.bin", bytes(1 << 20))
    with pytest.raises(BadInputError, match="is compressed"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("manifest.json", members["manifest.json"])
    with pytest.raises(BadInputError, match="2 members, 1 names"):
        load(path)
    data = bytearray(written(path, members).read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 20 : directory + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="members claim"):
        load(path)
