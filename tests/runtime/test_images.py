"""Folders of images as data: classes, channels, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from data_files import IMAGES, npz, png, same, saved

from snncc.errors import BadInputError, MissingDependencyError
from snncc.runtime.coding import read_data


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
