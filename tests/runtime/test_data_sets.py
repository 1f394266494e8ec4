"""Data sets that are read in parts give what reading them at once gives."""

import gzip
import io
import struct
import sys
import tarfile

import numpy as np
import pytest
from data_files import idx_bytes, npz, png, saved

from snncc.errors import BadInputError, MissingDependencyError, UsageError
from snncc.runtime.coding import read_data
from snncc.runtime.data_sets import content_hash, open_data

N = 23
X = np.random.default_rng(0).integers(0, 256, (N, 3, 4, 5), dtype=np.uint8)
Y = np.arange(N) % 4
MASK = np.random.default_rng(1).integers(0, 2, (N, 1, 2, 1), dtype=np.uint8)
#: In order, again, back, one, all.
PARTS = ((0, 7), (7, 14), (7, 9), (2, 5), (22, 23), (0, 23))


def _folder(path):
    for i, x in enumerate(X):
        png(path / str(Y[i]) / f"{i:03}.png", x.transpose(1, 2, 0))
    return path


FORMATS = {
    "stored.npz": lambda path: npz(path, x=X, y=Y, mask=MASK),
    "packed.npz": lambda path: [np.savez_compressed(path, x=X, y=Y, mask=MASK), path][1],
    "x.npy": lambda path: [np.save(path, X), path][1],
    "big.npy": lambda path: [np.save(path, X.astype(">f4")), path][1],
    "x.idx": lambda path: saved(path, idx_bytes(X)),
    "x.idx.gz": lambda path: saved(path, gzip.compress(idx_bytes(X))),
    "images": _folder,
}


@pytest.mark.parametrize("name", FORMATS)
def test_parts_are_what_is_read_at_once(name, tmp_path):
    path = FORMATS[name](tmp_path / name)
    whole = read_data(path, shape=(3, 4, 5), masks=True)
    data = open_data(path, shape=(3, 4, 5), masks=True)
    assert (len(data), data.origin, data.dtype) == (N, whole.origin, whole.x.dtype)
    for first, last in PARTS:
        part = data.read(first, last)
        for got, all_of_it in ((part.x, whole.x), (part.y, whole.y), (part.mask, whole.mask)):
            assert (got is None) == (all_of_it is None)
            if got is not None:
                assert got.dtype == all_of_it.dtype
                np.testing.assert_array_equal(got, all_of_it[first:last])
    data.close()


def test_no_more_than_the_limit(tmp_path):
    data = open_data(npz(tmp_path / "x.npz", x=X, y=Y), limit=10)
    assert (len(data), data.labels.tolist()) == (10, Y[:10].tolist())
    with pytest.raises(UsageError, match="limit=0: must be at least 1"):
        open_data(tmp_path / "x.npz", limit=0)


def test_labels_of_their_own_file_overrule(tmp_path):
    np.save(tmp_path / "y.npy", Y + 1)
    data = open_data(npz(tmp_path / "x.npz", x=X, y=Y), tmp_path / "y.npy")
    assert data.read(3, 5).y.tolist() == (Y[3:5] + 1).tolist()


def test_a_channel_is_added_to_grey_images(tmp_path):
    data = open_data(npz(tmp_path / "x.npz", x=X[:, 0]), shape=(1, 4, 5))
    assert data.notes == ("[N, 4, 5] taken as [N, 1, 4, 5], grey",)
    assert data.read(1, 3).x.shape == (2, 1, 4, 5)


def _refused(path, match, **options):
    with pytest.raises(BadInputError, match=match) as e:
        _read_all(path, options)
    assert str(path) in e.value.message


def _read_all(path, options):
    data = open_data(path, **options)
    data.read(0, len(data))


def test_columns_first_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    _refused(tmp_path / "x.npy", "scattered over the file; save numpy.ascontiguousarray")


def test_other_shapes_labels_and_masks_are_refused_at_once(tmp_path):
    file = tmp_path / "x.npz"
    _refused(npz(file, x=X), "the network takes", shape=(3, 5, 4))
    _refused(npz(file, x=X, y=Y[1:]), "22 labels for 23 samples")
    _refused(npz(file, x=X, mask=MASK[1:]), "for 23 samples; give one mask", masks=True)
    _refused(npz(file, x=X[:0]), "no samples")
    _refused(tmp_path / "none.npz", "No such file")


def test_damage_is_found_where_it_is(tmp_path):
    np.save(tmp_path / "x.npy", X)
    content = (tmp_path / "x.npy").read_bytes()
    _refused(saved(tmp_path / "short.npy", content[:-1]), "claims")
    _refused(saved(tmp_path / "long.npy", content + b"\0"), "bytes follow")
    _refused(saved(tmp_path / "cut.idx.gz", gzip.compress(idx_bytes(X))[:-30]), "damaged|end")
    packed = bytearray(npz(tmp_path / "x.npz", x=X).read_bytes())
    packed[packed.index(X[20].tobytes()[:8])] ^= 1  # of which a checksum tells
    _refused(saved(tmp_path / "bits.npz", bytes(packed)), "CRC")


def test_hashes_are_of_numbers_and_not_of_files(tmp_path):
    files = [npz(tmp_path / "a.npz", x=X, y=Y), npz(tmp_path / "b.npz", images=X, labels=Y)]
    hashes = [content_hash(open_data(file).read(3, 9)) for file in files]
    assert hashes[0] == hashes[1]
    others = (npz(tmp_path / "c.npz", x=X, y=Y + 1), npz(tmp_path / "d.npz", x=X + 1, y=Y))
    others += (npz(tmp_path / "e.npz", x=X),)
    assert not {content_hash(open_data(file).read(3, 9)) for file in others} & set(hashes)


# -- tar files -----------------------------------------------------------------------------


def _png_bytes(array):
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(array.transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()


def _tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _members(first, last, suffix="cls"):
    for i in range(first, last):
        yield f"s/{i:04}.png", _png_bytes(X[i])
        yield f"s/{i:04}.{suffix}", str(Y[i]).encode()


def test_tar_files_are_one_data_set(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    _tar(folder / "b.tar", _members(15, N))
    _tar(folder / "a.tar", _members(0, 15))
    data = open_data(folder, shape=(3, 4, 5))
    assert (len(data), data.origin) == (N, f"{folder} (2 tar files)")
    for first, last in PARTS:
        np.testing.assert_array_equal(data.read(first, last).x, X[first:last])
        assert data.read(first, last).y.tolist() == Y[first:last].tolist()
    assert len(open_data(folder / "a.tar")) == 15
    assert open_data(_tar(tmp_path / "bare.tar", _members(0, 3, "txt"))).labels is None


@pytest.mark.slow
def test_tar_files_are_read_as_webdataset_reads_them(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for i in range(N):
            image = X[i].transpose(1, 2, 0)
            writer.write({"__key__": f"k{i:03}", "png": image, "cls": int(Y[i])})
    data = open_data(tmp_path / "w.tar")
    theirs = webdataset.WebDataset(str(tmp_path / "w.tar"), shardshuffle=False).decode("rgb8")
    for i, sample in enumerate(theirs):
        np.testing.assert_array_equal(data.read(i, i + 1).x[0], sample["png"].transpose(2, 0, 1))
        assert data.labels[i] == sample["cls"]
    assert i == N - 1


def test_tar_files_that_go_wrong(tmp_path):
    tar, good = tmp_path / "t.tar", list(_members(0, 3))
    _refused(_tar(tar, [*good, ("s/0009.cls", b"1")]), "sample 's/0009' has 0 images")
    _refused(_tar(tar, [*good, ("s/0009.png", good[0][1])]), "1 of 4 samples lack their class")
    _refused(_tar(tar, [good[0], (good[1][0], b"cat")]), "b'cat' is no class")
    _refused(_tar(tar, []), "no samples")
    content = _tar(tar, good).read_bytes()
    end = content.rindex(b"s/0002.png") + 520
    _refused(saved(tar, content[:end]), "cut off|damaged|end of data")
    with tarfile.open(tar, "w") as archive:
        link = tarfile.TarInfo("s/0000.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    _refused(tar, "is no regular file")


# -- Hugging Face --------------------------------------------------------------------------


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets")


def _images(datasets):
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=4)}
    rows = {"image": [{"bytes": _png_bytes(x), "path": None} for x in X], "label": Y.tolist()}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


def test_splits_of_images(datasets, tmp_path):
    _images(datasets).save_to_disk(str(tmp_path / "test"))
    data = open_data(tmp_path / "test", shape=(3, 4, 5))
    assert (len(data), data.origin) == (N, f"{tmp_path / 'test'} (datasets)")
    for first, last in PARTS:
        np.testing.assert_array_equal(data.read(first, last).x, X[first:last])
        assert data.read(first, last).y.tolist() == Y[first:last].tolist()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_splits_of_arrays(dtype, datasets, tmp_path):
    kinds = {"x": datasets.Array3D((3, 4, 5), dtype), "y": datasets.Value("int64")}
    rows = {"x": list(X.astype(dtype)), "y": Y.tolist()}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    made.save_to_disk(str(tmp_path / "test"))
    data = open_data(tmp_path / "test", shape=(3, 4, 5))
    assert (data.dtype, data.labels.tolist()) == (np.dtype(dtype), Y.tolist())
    np.testing.assert_array_equal(data.read(5, 9).x, X[5:9].astype(dtype))


def test_a_split_has_to_be_named(datasets, tmp_path):
    parts = {"test": _images(datasets), "train": _images(datasets)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "all"))
    _refused(tmp_path / "all", "holds the splits test, train; name the folder of one")
    assert len(open_data(tmp_path / "all" / "test")) == N


def test_paths_in_a_data_set_are_not_followed(datasets, tmp_path):
    import pyarrow as pa

    png(tmp_path / "secret.png", X[0].transpose(1, 2, 0))
    _images(datasets).save_to_disk(str(tmp_path / "test"))
    (file,) = (tmp_path / "test").glob("*.arrow")
    with pa.ipc.open_stream(file) as stream:
        schema = stream.schema
    rows = {
        "image": [{"bytes": None, "path": str(tmp_path / "secret.png")}],
        "label": [0],
    }
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, schema) as writer:
        writer.write_table(pa.table(rows, schema=schema))
    _refused(tmp_path / "test", "only its path, which is not followed")


def test_other_columns_are_told(datasets, tmp_path):
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "t"))
    _refused(tmp_path / "t", r"holds text \(Value\); expected a column of type Image")


def test_without_the_package_its_name_is_told(tmp_path, monkeypatch):
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'snncc\[datasets\]'"):
        open_data(tmp_path)


def test_a_header_that_lies_takes_no_memory(tmp_path):
    header = struct.pack(">HBB4I", 0, 8, 4, 1 << 20, 1, 1 << 10, 1 << 10)
    _refused(saved(tmp_path / "x.idx", header + b"\0"), "claims")
