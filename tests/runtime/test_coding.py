from __future__ import annotations

import gc
import gzip
import io
import math
import pickle
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from data_files import IMAGES, ONE_FOLDER, arrays, idx_bytes, npz, same, saved, write_npz
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from snncc.errors import BadInputError, UsageError
from snncc.runtime.coding import read_data

# --- round trips ----------------------------------------------------------------------------------


@ONE_FOLDER
@given(array=arrays(), packed=st.booleans())
def test_idx_is_read_back_bit_for_bit_with_a_channel_axis_for_grey(tmp_path, array, packed):
    data = idx_bytes(array)
    file = saved(tmp_path / "data.bin", gzip.compress(data) if packed else data)
    expected = array[:, None] if array.ndim == 3 else array
    assert same(read_data(file).x, expected)


@ONE_FOLDER
@given(x=arrays(), y=hnp.arrays("u1", 1), compressed=st.booleans())
def test_npz_is_read_back_bit_for_bit(tmp_path, x, y, compressed):
    y = np.repeat(y, len(x))
    file = tmp_path / "data.npz"
    if compressed:
        np.savez_compressed(file, images=x, labels=y)
    else:
        npz(file, x=x, y=y)
    data = read_data(file)
    assert same(data.x, x)
    assert same(data.y, y.astype(np.int64))


@ONE_FOLDER
@given(x=arrays(), fortran=st.booleans(), big=st.booleans())
def test_npy_is_read_back_whatever_its_memory_order_and_byte_order(tmp_path, x, fortran, big):
    file = tmp_path / "x.npy"
    stored = x.astype(x.dtype.newbyteorder(">" if big else "<"), order="F" if fortran else "C")
    np.save(file, stored)
    data = read_data(file)
    assert same(data.x, x)
    assert data.x.flags.c_contiguous


@ONE_FOLDER
@given(data=st.data())
def test_damage_raises_nothing_but_a_bad_input_error(tmp_path, data):
    """A byte is changed anywhere, and the rest cut off or not."""
    buffer = io.BytesIO()
    kind = data.draw(st.sampled_from(["npz", "packed npz", "npy", "idx", "idx.gz"]))
    if kind.endswith("npz"):
        (np.savez_compressed if kind[0] == "p" else np.savez)(buffer, x=IMAGES, y=np.arange(3))
    elif kind == "npy":
        np.save(buffer, IMAGES)
    else:
        content = idx_bytes(IMAGES)
        buffer.write(gzip.compress(content) if kind == "idx.gz" else content)
    damaged = bytearray(buffer.getvalue())
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[place:]
    file = saved(tmp_path / "damaged", bytes(damaged))
    with suppress(BadInputError):
        read_data(file)


def test_write_npz_depends_only_on_names_and_values(tmp_path):
    a, b = np.arange(6.0).reshape(2, 3), np.ones(2, np.uint8)
    write_npz(tmp_path / "1.npz", a=a, b=b)
    write_npz(tmp_path / "2.npz", b=b, a=np.asfortranarray(a).astype(">f8"))
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    with np.load(tmp_path / "1.npz", allow_pickle=False) as stored:
        assert sorted(stored) == ["a", "b"]
        assert same(stored["a"], a)


def test_write_npz_keeps_an_existing_file_unless_told_otherwise(tmp_path):
    file = npz(tmp_path / "x.npz", x=np.zeros(1))
    before = file.read_bytes()
    with pytest.raises(BadInputError, match="exists already"):
        write_npz(file, x=np.ones(1))
    assert file.read_bytes() == before
    write_npz(file, overwrite=True, x=np.ones(1))
    assert file.read_bytes() != before
    assert list(tmp_path.iterdir()) == [file]


def test_write_npz_leaves_nothing_behind_when_it_fails(tmp_path):
    with pytest.raises(BadInputError, match="array 'x': object"):
        write_npz(tmp_path / "x.npz", x=np.array([None]))
    with pytest.raises(BadInputError, match="cannot be written"):
        write_npz(tmp_path / "absent" / "x.npz", x=np.zeros(1))
    with pytest.raises(BadInputError, match="cannot be written"):
        write_npz(saved(tmp_path / "file", b"") / "x.npz", x=np.zeros(1))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


# --- what is taken for samples and labels ---------------------------------------------------------


def test_npz_with_a_single_array_of_any_name(tmp_path):
    assert same(read_data(npz(tmp_path / "d", pixels=IMAGES, y=np.arange(3))).x, IMAGES)


def test_npz_with_several_unnamed_arrays_lists_them(tmp_path):
    with pytest.raises(BadInputError, match="holds a, b; expected an array named x or images"):
        read_data(npz(tmp_path / "d", a=IMAGES, b=IMAGES))


@pytest.mark.parametrize("kind", ["npy", "npz", "idx"])
def test_labels_from_a_file_of_their_own_overrule(tmp_path, kind):
    x = npz(tmp_path / "x.npz", x=IMAGES, y=np.zeros(3, np.uint8))
    y = np.array([2, 0, 1], np.uint8)
    file = tmp_path / "labels"
    if kind == "npy":
        np.save(file.open("wb"), y)
    elif kind == "npz":
        npz(file, anything=y)
    else:
        saved(file, idx_bytes(y))
    assert read_data(x, labels=file).y.tolist() == [2, 0, 1]


GREY = ("[N, 4, 5] taken as [N, 1, 4, 5], grey",)
SEQUENCES = ("[N, 3, 4, 5] taken as [N, 3, 1, 4, 5], grey",)


@pytest.mark.parametrize(
    ("stored", "network", "read", "notes"),
    [
        ((3, 4, 5), (1, 4, 5), (3, 1, 4, 5), GREY),
        ((1, 4, 5), (1, 4, 5), (1, 1, 4, 5), GREY),
        ((3, 4, 5), (4, 5), (3, 4, 5), ()),
        ((3, 1, 4, 5), (1, 4, 5), (3, 1, 4, 5), ()),
        ((2, 3, 4, 5), (3, 1, 4, 5), (2, 3, 1, 4, 5), SEQUENCES),
        ((2, 3, 4, 5), (3, 4, 5), (2, 3, 4, 5), ()),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "idx"])
def test_grey_images_get_their_channel_axis_with_a_word(
    kind, stored, network, read, notes, tmp_path
):
    x = np.arange(np.prod(stored), dtype=np.uint8).reshape(stored)
    file = tmp_path / "x"
    npz(file, x=x) if kind == "npz" else saved(file, idx_bytes(x))
    found = read_data(file, shape=network, limit=2)
    assert (found.notes, found.x.shape) == (notes, (min(2, len(x)), *read[1:]))
    assert found.x.tobytes() == x[:2].tobytes()


@pytest.mark.parametrize("stored", [(3, 4, 6), (3, 5, 4), (4, 5), (2, 2, 4, 5)])
def test_no_channel_axis_is_guessed_where_sizes_differ(stored, tmp_path):
    file = npz(tmp_path / "x.npz", x=np.zeros(stored, np.uint8))
    with pytest.raises(BadInputError, match="shape \\" + str([*stored])[:-1]):
        read_data(file, shape=(1, 4, 5))


@pytest.mark.parametrize(
    ("dtype", "value", "notes"),
    [("f8", 0.1, ("float64 rounded to float32",)), ("f8", 0.5, ()), ("f4", 0.1, ()), ("u1", 1, ())],
)
def test_values_that_float32_does_not_hold_get_a_word(dtype, value, notes, tmp_path):
    x = np.zeros((3, 2), dtype)
    x[1, 1] = value
    file = npz(tmp_path / "x.npz", x=x)
    assert read_data(file, shape=(2,)).notes == notes
    assert read_data(file, shape=(2,), limit=1).notes == ()
    assert same(read_data(file, shape=(2,)).x, x)


def test_limit_takes_the_first_samples_and_their_labels(tmp_path):
    file = npz(tmp_path / "x.npz", x=IMAGES, y=np.arange(3))
    data = read_data(file, limit=2)
    assert (len(data), data.y.tolist()) == (2, [0, 1])
    assert len(data.take(None)) == len(data.take(100)) == 2
    assert data.origin == f"{file} (npz)"
    with pytest.raises(UsageError, match=r"^limit=0: must be"):
        read_data(file, limit=0)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(2, np.int64), "2 labels for 3 samples"),
        (np.zeros(3), r"labels are float64 \[3\]"),
        (np.zeros((3, 10), np.uint8), r"labels are uint8 \[3, 10\]"),
        (np.array([0, -1, 1]), "label -1 at index 1; classes are 0 to 9223372036854775807"),
        (np.array([0, 1, 2**64 - 1], np.uint64), "label 18446744073709551615 at index 2"),
        (np.array([0, 2**63, 1], np.uint64), "label 9223372036854775808 at index 1"),
        (np.array([0, -128, 1], np.int8), "label -128 at index 1"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(tmp_path, y, message):
    with pytest.raises(BadInputError, match=message):
        read_data(npz(tmp_path / "x.npz", x=IMAGES, y=y))


# --- files that are refused -----------------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("touched_by_a_pickle"),))


def test_objects_are_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, save in (("x.npy", np.save), ("x.npz", np.savez)):
        save(name, np.array([Malicious()], dtype=object))
        with pytest.raises(BadInputError, match="objects are never unpickled"):
            read_data(name)
    with pytest.raises(BadInputError, match="unknown format"):
        read_data(saved(tmp_path / "x.pkl", pickle.dumps(Malicious())))
    assert not Path("touched_by_a_pickle").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"cut off or damaged \(empty\); copy or download it again"),
        (b"hello", "unknown format; expected npz, npy, idx"),
        (b"\0\0\x08", "cut off or damaged"),
        (b"\0\0\x08\0", "not an idx header"),
        (b"\0\0\x08\xff" + b"\1" * 2000, "not an idx header"),
        (b"\0\0\x08\x02\0\0\0\x01", "cut off or damaged"),
        (idx_bytes(IMAGES)[:-1], "its header claims .* but at most 59 follow"),
        (idx_bytes(IMAGES) + b"\0", "bytes follow after"),
        (idx_bytes(IMAGES[:0]), "no samples"),
        (b"\0\0\x0e\x04" + b"\xff" * 16 + b"data", "but at most 4 follow"),
        (
            gzip.compress(b"\0\0\x0e\x04" + b"\xff" * 16 + b"data", mtime=0),
            "its header claims",
        ),
        (gzip.compress(idx_bytes(IMAGES)[:-1], mtime=0), "59 of 60 bytes"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:-9], "cut off or damaged"),
        (gzip.compress(b"hello", mtime=0), "not an idx header"),
        (b"\x93NUMPY\3\0", "npy version"),
        (b"PK\x03\x04....", "cut off or damaged"),
    ],
)
def test_a_file_that_is_not_what_it_claims_is_refused_by_name(tmp_path, data, message):
    file = saved(tmp_path / "data", data)
    with pytest.raises(BadInputError, match=message) as caught:
        read_data(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("kind", ["npz", "idx.gz"])
def test_a_changed_value_is_caught_by_the_checksum(tmp_path, kind):
    content = idx_bytes(IMAGES)
    data = bytearray(
        npz(tmp_path / "x", x=IMAGES).read_bytes()
        if kind == "npz"
        else gzip.compress(content, compresslevel=0)
    )
    data[data.index(IMAGES.tobytes()) + 7] ^= 1
    with pytest.raises(BadInputError, match="CRC"):
        read_data(saved(tmp_path / "x", bytes(data)))


def test_a_header_of_an_array_larger_than_its_file_takes_no_memory(tmp_path):
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2**15)}
    np.lib.format.write_array_header_1_0(buffer, header)
    with pytest.raises(BadInputError, match="header claims"):
        read_data(saved(tmp_path / "x.npy", buffer.getvalue()))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue())
    with pytest.raises(BadInputError, match=r"array 'x': cut off or damaged .*header claims"):
        read_data(tmp_path / "x.npz")


def test_a_zip_that_claims_more_than_it_can_hold_is_refused(tmp_path):
    file = npz(tmp_path / "x.npz", x=IMAGES)
    data = bytearray(file.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 20 : directory + 28] = struct.pack("<II", 2**31, 2**31)
    with pytest.raises(BadInputError, match="claims 2147483648 bytes, more than the file"):
        read_data(saved(file, bytes(data)))


def test_unusual_zip_compression_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", b"")
    with pytest.raises(BadInputError, match="compression 14"):
        read_data(tmp_path / "x.npz")


def test_a_missing_file_and_a_scalar_are_refused(tmp_path):
    with pytest.raises(BadInputError, match=r"absent: cannot be read \(No such file"):
        read_data(tmp_path / "absent")
    np.save(tmp_path / "x.npy", np.float32(1))
    with pytest.raises(BadInputError, match=r"no samples, shape \[\]"):
        read_data(tmp_path / "x.npy")


def test_samples_of_another_shape_are_refused_with_both_shapes(tmp_path):
    file = npz(tmp_path / "x.npz", x=IMAGES)
    with pytest.raises(BadInputError, match=r"shape \[3, 4, 5\], the network takes \[N, 3, 8, 8\]"):
        read_data(file, shape=(3, 8, 8))


# --- memory, and no more than is asked for --------------------------------------------------------

LARGE = (1 << 14, 32, 32)  # 16 MB of bytes


def _large(kind, tmp_path):
    x = np.zeros(LARGE, ">i2" if "big" in kind else np.bool_ if "bool" in kind else np.uint8)
    x[-1, -1, -1] = 1
    x = np.asfortranarray(x) if "columns" in kind else x
    file = tmp_path / "x"
    if "npy" in kind:
        np.save(file.open("wb"), x)
    elif "idx" in kind:
        saved(file, gzip.compress(idx_bytes(x), 1))
    else:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, x)
        method = zipfile.ZIP_DEFLATED if "packed" in kind else zipfile.ZIP_STORED
        with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
            archive.writestr("x.npy", buffer.getvalue())
    return file, x


def _peak(work):
    gc.collect()
    tracemalloc.start()
    try:
        found = work()
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "kind",
    [
        *("npz", "npz packed", "npz packed columns", "npz packed big", "npz packed bool"),
        *("idx.gz", "npy columns"),
    ],
)
def test_an_array_is_in_memory_once_and_of_few_rows_only_those(kind, tmp_path):
    file, x = _large(kind, tmp_path)
    data, peak = _peak(lambda: read_data(file, shape=LARGE[1:]))
    assert peak < x.nbytes + (6 << 20)
    assert np.array_equal(data.x, x)
    first, peak = _peak(lambda: read_data(file, shape=LARGE[1:], limit=3))
    assert peak < 4 << 20
    assert (len(first), first.x.dtype, first.x.any()) == (3, data.x.dtype, False)


@pytest.mark.parametrize("kind", ["npz packed", "idx.gz", "npz"])
def test_what_lies_behind_the_limit_is_not_read(kind, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (64, 200, 200), dtype=np.uint8)
    buffer = io.BytesIO()
    if kind == "idx.gz":
        buffer.write(gzip.compress(idx_bytes(x), 1))
    else:
        (np.savez_compressed if "packed" in kind else np.savez)(buffer, x=x)
    damaged = bytearray(buffer.getvalue())
    damaged[len(damaged) * 3 // 4] ^= 255
    file = saved(tmp_path / "x", bytes(damaged))
    assert np.array_equal(read_data(file, limit=5).x.reshape(5, 200, 200), x[:5])
    with pytest.raises(BadInputError):
        read_data(file)


@ONE_FOLDER
@given(x=arrays(), limit=st.integers(1, 5), fortran=st.booleans(), labelled=st.booleans())
def test_the_first_rows_are_those_of_the_whole(tmp_path, x, limit, fortran, labelled):
    more = {"y": np.arange(len(x)), "mask": np.zeros((len(x), 2, 2))} if labelled else {}
    np.savez(tmp_path / "x.npz", x=np.asfortranarray(x) if fortran else x, **more)
    few = read_data(tmp_path / "x.npz", limit=limit, masks=True)
    assert same(few.x, np.ascontiguousarray(x[:limit]))
    assert not labelled or few.y.tolist() == list(range(len(few)))
    assert not labelled or few.mask.shape == (len(few), 2, 2)


def test_counts_in_messages_are_those_of_the_file(tmp_path):
    x = np.zeros((9, 4, 5), np.uint8)
    with pytest.raises(BadInputError, match="7 labels for 9 samples"):
        read_data(npz(tmp_path / "x.npz", x=x, y=np.zeros(7, np.uint8)), limit=2)
    with pytest.raises(BadInputError, match=r"mask of shape \[7, 2, 2\] for 9 samples"):
        read_data(npz(tmp_path / "x.npz", x=x, mask=np.zeros((7, 2, 2))), limit=2, masks=True)
    with pytest.raises(BadInputError, match=r"shape \[9, 4, 5\], the network takes \[N, 3\]"):
        read_data(npz(tmp_path / "x.npz", x=x), shape=(3,), limit=2)


def test_data_that_do_not_fit_into_memory_are_said_not_to(tmp_path, monkeypatch):
    file = npz(tmp_path / "x.npz", x=IMAGES)
    empty = np.empty

    def scarce(shape, *more):
        if math.prod(shape) > 20:
            raise MemoryError("Unable to allocate 1.00 TiB for an array")
        return empty(shape, *more)

    monkeypatch.setattr("numpy.empty", scarce)
    with pytest.raises(BadInputError, match=r"x\.npz: does not fit into memory .*limit=N"):
        read_data(file)
    assert same(read_data(file, limit=1).x, IMAGES[:1])


@pytest.mark.parametrize("kind", ["npz packed", "idx.gz", "npy columns"])
def test_samples_of_another_shape_are_refused_before_they_take_memory(kind, tmp_path):
    file, _ = _large(kind, tmp_path)

    def refused():
        with pytest.raises(BadInputError, match=r"x: shape \[16384, 32, 32\], the network takes"):
            read_data(file, shape=(3, 32, 32))

    assert _peak(refused)[1] < 1 << 20


def test_booleans_are_zero_and_one(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3, np.bool_))
    stored = buffer.getvalue()[:-3] + b"\0\2\xff"
    read = read_data(saved(tmp_path / "x.npy", stored)).x
    assert read.view(np.uint8).tolist() == [0, 1, 1]


def test_a_header_of_python_2_is_read_and_says_nothing(tmp_path, recwarn):
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 3, 3), np.uint8))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data.replace(b"(2, 1, 3, 3), }", b"(2L,1, 3, 3), }"))
    assert read_data(tmp_path / "x.npy").x.shape == (2, 1, 3, 3)
    assert [str(warning.message) for warning in recwarn] == []
