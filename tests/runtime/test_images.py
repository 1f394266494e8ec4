"""Folders of images as data: classes, channels, and what is refused."""

from __future__ import annotations

import io
import os
import struct
import sys
import warnings
import zlib
from contextlib import suppress

import numpy as np
import PIL.Image
import pytest
from data_files import IMAGES, npz, png, same, saved

from snncc.errors import BadInputError, MissingDependencyError
from snncc.runtime.coding import read_data
from snncc.runtime.images import FORMATS, MOST_PIXELS


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


# --- hostile images -------------------------------------------------------------------------------

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A PostScript interpreter on the path that leaves a word of its having run."""
    word = tmp_path / "ran"
    (tmp_path / "bin").mkdir()
    program = saved(tmp_path / "bin" / "gs", f"#!/bin/sh\ntouch {word}\n".encode())
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    return word


def test_no_image_reaches_a_postscript_interpreter(tmp_path, ghostscript):
    (tmp_path / "images").mkdir()
    saved(tmp_path / "images" / "a.png", EPS)
    with pytest.raises(BadInputError, match=r"a\.png: cannot be read as BMP, JPEG, PNG"):
        read_data(tmp_path / "images", shape=(3, 4, 5))
    assert not ghostscript.exists()


def _other_formats():
    """Formats that Pillow writes and reads and that are none of ours, by a file of each."""
    PIL.Image.init()
    found = {}
    for name in sorted(PIL.Image.SAVE.keys() - set(FORMATS)):
        buffer = io.BytesIO()
        with suppress(OSError, ValueError, KeyError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some are on their way out
            PIL.Image.new("RGB", (5, 4)).save(buffer, name)
            if PIL.Image.open(io.BytesIO(buffer.getvalue())).format not in FORMATS:
                found[name] = buffer.getvalue()
    return found


OTHERS = _other_formats()


@pytest.mark.parametrize("form", OTHERS)
def test_no_other_of_pillows_readers_is_tried(form, tmp_path):
    saved(tmp_path / "a.png", OTHERS[form])
    with pytest.raises(BadInputError, match=r"a\.png: cannot be read as BMP, JPEG, PNG"):
        read_data(tmp_path)


@pytest.mark.parametrize("form", FORMATS)
def test_the_formats_are_told_by_their_bytes_not_their_names(form, tmp_path):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (5, 4), (255, 255, 255)).save(buffer, form)
    saved(tmp_path / "a.jpg", buffer.getvalue())
    assert read_data(tmp_path).x.shape == (1, 3, 4, 5)
    assert read_data(tmp_path).x.min() > 250


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_bomb(width, height):
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + _chunk(b"IDAT", zlib.compress(bytes(9)))
        + _chunk(b"IEND", b"")
    )


def _bmp_bomb(width, height):
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def _ppm_bomb(width, height):
    return b"P6 %d %d 255\n" % (width, height)


BOMBS = {"png": _png_bomb, "bmp": _bmp_bomb, "ppm": _ppm_bomb}


@pytest.mark.parametrize("side", [1 + int(MOST_PIXELS**0.5), 12_000, 60_000])
@pytest.mark.parametrize("form", BOMBS)
@pytest.mark.filterwarnings("error")
def test_a_pixel_bomb_is_refused_before_its_pixels_take_memory(form, side, tmp_path):
    saved(tmp_path / "a.png", BOMBS[form](side, side))
    with pytest.raises(BadInputError, match=r"a\.png: too large \("):
        read_data(tmp_path)
    with pytest.raises(BadInputError, match=r"a\.png: (too large|image is .*, expected 4x5)"):
        read_data(tmp_path, shape=(3, 4, 5))


def test_a_file_far_larger_than_its_image_is_not_read(tmp_path):
    png(tmp_path / "a.png", IMAGES[0])
    os.truncate(tmp_path / "a.png", 1 << 40)  # sparse
    for shape in (None, (1, 4, 5)):
        with pytest.raises(BadInputError, match=r"a\.png: too large \(1099511627776 bytes"):
            read_data(tmp_path, shape=shape)


@pytest.mark.filterwarnings("error")
def test_what_pillow_warns_of_stays_off_the_screen(tmp_path, capfd):
    buffer = io.BytesIO()
    image = PIL.Image.fromarray(IMAGES[0]).convert("P")
    image.save(buffer, "PNG", transparency=bytes(range(20)))
    saved(tmp_path / "a.png", buffer.getvalue())
    assert read_data(tmp_path).x.shape == (1, 3, 4, 5)
    assert capfd.readouterr().err == ""


def test_nor_does_the_library_for_tiff_speak_for_itself(tmp_path, capfd):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (32, 32), (1, 2, 3)).save(buffer, "TIFF", compression="tiff_deflate")
    data = bytearray(buffer.getvalue())
    place = data.index(b"\x78")
    data[place + 4 : place + 12] = bytes(8)
    saved(tmp_path / "a.tif", bytes(data))
    with pytest.raises(BadInputError, match=r"a\.tif: "):
        read_data(tmp_path)
    os.write(2, b"and stderr is there")
    assert capfd.readouterr().err == "and stderr is there"
