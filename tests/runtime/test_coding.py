from __future__ import annotations

import gzip
import io
import pickle
import struct
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from snncc.errors import BadInputError, MissingDependencyError, UsageError
from snncc.runtime.coding import check_input, normalise, read_data, write_npz

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
ONE_FOLDER = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


def idx_bytes(array: np.ndarray) -> bytes:
    code = IDX_CODES[array.dtype.str[1:]]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def npz(path: Path, **arrays: np.ndarray) -> Path:
    write_npz(path, overwrite=True, **arrays)
    return path


def png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def arrays(min_dims: int = 1) -> st.SearchStrategy[np.ndarray]:
    shapes = hnp.array_shapes(min_dims=min_dims, max_dims=4, max_side=4)
    return st.sampled_from(sorted(IDX_CODES)).flatmap(lambda kind: hnp.arrays(kind, shapes))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


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
    with pytest.raises(UsageError, match="--limit 0"):
        read_data(file, limit=0)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(2, np.int64), "2 labels for 3 samples"),
        (np.zeros(3), r"labels are float64 \[3\]"),
        (np.zeros((3, 10), np.uint8), r"labels are uint8 \[3, 10\]"),
        (np.array([0, -1, 1]), "label -1 at index 1"),
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


# --- folders of images ----------------------------------------------------------------------------


def test_sub_folders_are_classes_in_the_order_of_their_names(tmp_path):
    for label, name in enumerate(["ant", "bee", "cat"]):
        png(tmp_path / name / "1.png", np.full((4, 5, 3), label, np.uint8))
        png(tmp_path / name / "0.png", np.full((4, 5, 3), 10 + label, np.uint8))
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    data = read_data(tmp_path, shape=(3, 4, 5))
    assert data.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.x[:, 0, 0, 0].tolist() == [10, 0, 11, 1, 12, 2]
    assert (data.x.dtype, data.x.shape) == (np.uint8, (6, 3, 4, 5))
    assert len(read_data(tmp_path, limit=3)) == 3


def test_flat_images_have_no_labels_but_can_be_given_some(tmp_path):
    png(tmp_path / "images" / "a.png", IMAGES[0])
    png(tmp_path / "images" / "b.png", IMAGES[1])
    data = read_data(tmp_path / "images")
    assert data.y is None
    assert same(data.x, IMAGES[:2, None])
    labels = npz(tmp_path / "y.npz", y=np.array([4, 5]))
    assert read_data(tmp_path / "images", labels=labels, limit=1).y.tolist() == [4]


def test_images_are_decoded_to_the_channels_of_the_network(tmp_path):
    png(tmp_path / "a.png", IMAGES[0])
    assert same(read_data(tmp_path, shape=(3, 4, 5)).x, IMAGES[:1, None].repeat(3, axis=1))
    assert same(read_data(tmp_path, shape=(1, 4, 5)).x, IMAGES[:1, None])


def test_an_image_of_another_size_is_named_with_both_sizes(tmp_path):
    png(tmp_path / "a.png", IMAGES[0])
    png(tmp_path / "b.png", IMAGES[0].T.copy())
    with pytest.raises(BadInputError, match=r"b.png: image is 5x4, expected 4x5; .* preprocess"):
        read_data(tmp_path, shape=(1, 4, 5))


def test_images_that_cannot_be_decoded_to_8_bits_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="no images"):
        read_data(tmp_path)
    png(tmp_path / "16" / "a.png", IMAGES[0].astype(np.uint16))
    with pytest.raises(BadInputError, match="pixels of more than 8 bits"):
        read_data(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="no images in empty"):
        read_data(tmp_path)
    png(tmp_path / "a.png", IMAGES[0])
    with pytest.raises(BadInputError, match="both images and sub-folders"):
        read_data(tmp_path)
    with pytest.raises(BadInputError, match=r"images are \[1|3, H, W\]"):
        read_data(tmp_path, shape=(784,))


def test_a_truncated_image_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    png(tmp_path / "a.png", noise)
    saved(tmp_path / "a.png", (tmp_path / "a.png").read_bytes()[:400])
    with pytest.raises(BadInputError, match=r"a\.png: "):
        read_data(tmp_path)
    saved(tmp_path / "a.png", b"not a png")
    with pytest.raises(BadInputError, match=r"a\.png: cannot be read"):
        read_data(tmp_path)


def test_without_pillow_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    png(tmp_path / "a.png", IMAGES[0])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'snncc\[images\]'"):
        read_data(tmp_path)


# --- check_input and normalise --------------------------------------------------------------------


def test_check_input_returns_the_samples_contiguous_and_native():
    x = np.arange(12, dtype=">f8").reshape(3, 4).T
    out = check_input(x, (3,), "float32")
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert (out == x).all()
    assert check_input(out, (3,), np.float32) is out


@pytest.mark.parametrize(
    ("x", "dtype", "message"),
    [
        ([1, 2], "uint8", "a list, not a numpy array"),
        (np.zeros((2, 3, 4, 5), np.float32), "uint8", "dtype float32, .* raw pixels 0..255"),
        (np.zeros((2, 3, 4, 5), np.uint8), "float32", "dtype uint8, .*coding.normalise"),
        (np.zeros((2, 3, 4, 5), np.float16), "float32", "dtype float16"),
        (np.zeros((2, 3, 4, 5), bool), "uint8", "dtype bool"),
        (np.zeros((2, 3, 4, 5), np.int64), "uint8", r"dtype int64, .*x.astype\(numpy.uint8\)"),
        (np.full((2, 3, 4, 5), None), "uint8", "dtype object"),
        (np.zeros((2, 3, 4, 5), np.uint8), "int8", "asks for int8"),
        (np.zeros((3, 4, 5), np.uint8), "uint8", "single sample: add a batch axis"),
        (np.zeros((2, 4, 5, 3), np.uint8), "uint8", "channels are last"),
        (np.zeros((0, 3, 4, 5), np.uint8), "uint8", "there are no samples"),
        (np.zeros((2, 60), np.uint8), "uint8", r"shape \[2, 60\], the network takes \[N, 3, 4, 5"),
        (np.uint8(1)[...], "uint8", r"shape \[\]"),
    ],
)
def test_check_input_refuses_what_the_network_does_not_take(x, dtype, message):
    with pytest.raises(BadInputError, match=message):
        check_input(x, (3, 4, 5), dtype)


@pytest.mark.parametrize(
    ("shape", "network"), [((2, 4, 5), (1, 4, 5)), ((2, 3, 4, 5), (3, 1, 4, 5))]
)
def test_check_input_adds_no_channel_axis_and_says_how_to(shape, network):
    with pytest.raises(BadInputError, match=r"without their channel: .*expand_dims\(x, -3\)"):
        check_input(np.zeros(shape, np.uint8), network, "uint8")


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((3, 2, 4), r"timesteps are first: transpose with x.swapaxes\(0, 1\)"),
        ((2, 4), "static samples, it takes sequences of 3 timesteps"),
        ((2, 1, 4), "sequences of 1 timestep, it takes 3"),
        ((2, 3, 5), "nothing is resized"),
    ],
)
def test_check_input_refuses_sequences_that_are_others(shape, hint):
    with pytest.raises(BadInputError, match=hint):
        check_input(np.zeros(shape, np.uint8), (3, 4), "uint8")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_check_input_names_the_first_value_that_is_not_finite(value):
    x = np.zeros((2, 3))
    x[1, 1:] = value
    with pytest.raises(BadInputError, match=r"at index \[1, 1\], 2 such values"):
        check_input(x, (3,), "float32")


@given(
    x=hnp.arrays("u1", (2, 3, 2, 2)),
    mean=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    std=st.lists(st.floats(0.1, 1), min_size=3, max_size=3),
)
def test_normalise_rounds_every_step_to_float32_per_channel(x, mean, std):
    out = normalise(x, mean, std)
    assert out.dtype == np.float32
    for channel in range(3):
        pixels = x[:, channel].astype(np.float32) / np.float32(255)
        expected = (pixels - np.float32(mean[channel])) / np.float32(std[channel])
        assert same(out[:, channel], expected)


def test_normalise_takes_one_number_for_all_channels():
    x = np.full((1, 3, 1, 1), 255, np.uint8)
    assert (normalise(x, [0.5], [0.5]) == 1).all()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0, 0], [1], "--mean: 2 values for 3 channels"),
        ([0], [0], "--std: .* above 0"),
        ([np.nan], [1], "--mean: .* finite"),
    ],
)
def test_normalise_refuses_statistics_that_do_not_fit(mean, std, message):
    with pytest.raises(UsageError, match=message):
        normalise(np.zeros((1, 3, 2, 2), np.uint8), mean, std)


def test_normalise_wants_raw_pixels():
    with pytest.raises(BadInputError, match="expected raw uint8"):
        normalise(np.zeros((1, 3), np.float32), [0], [1])
