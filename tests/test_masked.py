"""Networks with a patch mask, from PyTorch to spikes: compiled masked, run masked, compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import snncc
from snncc.compiler import InputOptions, check
from snncc.errors import BadInputError, SnnccError, UnsupportedModelError, UsageError
from snncc.nn import (
    LIF,
    IntegerFire,
    SparseBatchNorm2d,
    SpikeSparseConv2d,
    apply_patch_mask,
    masked,
    random_patch_mask,
)
from snncc.runtime.coding import Dataset

MEAN, STD = (0.3, 0.5), (0.25, 0.4)
OPTIONS: dict[str, Any] = {
    "input_shape": (2, 12, 8),
    "input": InputOptions(mean=MEAN, std=STD),
    "name": "net",
    "weight_bits": 24,
}
PATCHES = (3, 2)


class Stream(nn.Module):
    """A residual sum of potentials, sparse and vanilla layers, strides, groups and a pool."""

    def __init__(self, norm: type[nn.Module] = SparseBatchNorm2d) -> None:
        super().__init__()
        self.stem = nn.Sequential(SpikeSparseConv2d(2, 4, 3, padding=1, bias=False), norm(4))
        self.fire1 = IntegerFire(4)
        self.conv = nn.Sequential(SpikeSparseConv2d(4, 4, 3, padding=1, groups=2), norm(4))
        self.fire2 = IntegerFire(3, norm=3.0)
        self.down = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), norm(6))
        self.fire3 = IntegerFire(4, rounding="half-up")
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(6 * 3 * 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.fire2(x + self.conv(self.fire1(x)))
        return self.head(self.pool(self.fire3(self.down(x))).flatten(1))


def trained(net: nn.Module) -> nn.Module:
    """Batch norms of a network that has seen data, with scales of both signs."""
    torch.manual_seed(3)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, 0, 0.3)
            nn.init.uniform_(norm.running_var, 0.05, 0.5)
            nn.init.normal_(norm.weight, 0.5, 1.0)
            nn.init.normal_(norm.bias, 0.8, 0.5)
    return net.eval()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return trained(Stream())


@pytest.fixture(scope="module")
def compiled(net: nn.Module) -> snncc.CompiledModel:
    return snncc.compile(net, patch_mask=PATCHES, **OPTIONS)


def samples(n: int = 64) -> tuple[np.ndarray, Tensor]:
    pixels = np.random.default_rng(1).integers(0, 256, (n, 2, 12, 8), dtype=np.uint8)
    return pixels, random_patch_mask(n, PATCHES, 0.5, torch.Generator().manual_seed(1))


def eager(net: nn.Module, pixels: np.ndarray, mask: Tensor) -> dict[str, np.ndarray]:
    """Spike counts of every neuron as PyTorch computes them, and the result."""
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (MEAN, STD))
    x = (torch.from_numpy(pixels).float() / 255 - mean) / std
    found: dict[str, np.ndarray] = {}
    fires = {m: name for name, m in net.named_modules() if isinstance(m, IntegerFire)}

    def keep(fire: Any, _: object, out: Tensor) -> None:
        found[fires[fire]] = np.rint(out.numpy() * fire.norm)

    hooks = [fire.register_forward_hook(keep) for fire in fires]
    with torch.no_grad(), masked(net, mask):
        found["output"] = net(apply_patch_mask(x, mask)).numpy()
    for hook in hooks:
        hook.remove()
    return found


# -- the law --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["integer", "clocked", "spike-form"])
def test_at_24_bits_it_fires_what_pytorch_fires_under_the_same_masks(
    net: nn.Module, compiled: snncc.CompiledModel, engine: str
) -> None:
    pixels, mask = samples()
    session = snncc.Session(compiled, engine=engine)
    feed = {"x": pixels, "mask": mask.numpy()}
    expected, found = eager(net, pixels, mask), session.trace(feed)
    for neuron in compiled.program.neurons:
        counts = found.counts[neuron.name][0]
        changed = np.mean(counts != expected[neuron.module])
        assert changed <= 1e-4, neuron.name
        assert counts.any()
    np.testing.assert_allclose(session.run(None, feed)[0], expected["output"], atol=1e-4)


def test_what_compiling_it_reports(compiled: snncc.CompiledModel) -> None:
    report = compiled.report
    assert report.import_law.changed == 0
    assert report.verify.mismatched == 0
    assert compiled.manifest["input"]["patches"] == [3, 2]
    assert report.origins["mask"] == "random, half of the patches"
    assert [a.masked for a in compiled.program.accumulators].count(PATCHES) == 3


def test_a_mask_of_ones_is_the_network_for_whole_images_bit_for_bit(net: nn.Module) -> None:
    pixels, _ = samples()
    options = {**OPTIONS, "weight_bits": 8}
    models = (snncc.compile(net, patch_mask=p, **options) for p in (PATCHES, None))
    found, expected = (snncc.Session(m, engine="integer").trace(pixels) for m in models)
    assert len(expected.counts) == 3
    for one, two in zip(found.counts.values(), expected.counts.values(), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(found.readouts["output"], expected.readouts["output"])


def test_behind_a_plain_batch_norm_it_is_pytorch_too() -> None:
    torch.manual_seed(0)
    net = trained(
        nn.Sequential(
            SpikeSparseConv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), IntegerFire(4),
            SpikeSparseConv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), IntegerFire(4),
            nn.Flatten(), nn.Linear(4 * 96, 3),
        )
    )  # fmt: skip
    pixels, mask = samples()
    model = snncc.compile(net, patch_mask=PATCHES, **OPTIONS)
    found = snncc.Session(model).trace({"x": pixels, "mask": mask.numpy()})
    expected = eager(net, pixels, mask)
    for neuron, name in zip(model.program.neurons, ("2", "5"), strict=True):
        assert np.mean(found.counts[neuron.name][0] != expected[name]) <= 1e-4


# -- data -----------------------------------------------------------------------------------


def test_masks_of_the_calibration_data_are_used(net: nn.Module) -> None:
    pixels, mask = samples(8)
    few = Dataset(pixels, None, "data", mask.numpy())
    model = snncc.compile(net, few, patch_mask=PATCHES, **OPTIONS)
    assert model.report.origins["mask"] == "the calibration data"
    assert model.report.changed_teacher_forced <= 1e-4
    stored = model.reference.x
    np.testing.assert_array_equal(stored, model.input.encode(pixels, mask=mask.numpy()))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((7, 1, 3, 2)), r"mask of shape \[7, 1, 3, 2\] for 8 samples"),
        (np.ones(()), r"mask of shape \[\] for 8 samples; give one mask for each"),
        (np.ones((8, 1, 2, 3)), r"the network takes \[8, 1, 3, 2\]"),
    ],
)
def test_wrong_masks_of_the_calibration_data_are_refused(
    net: nn.Module, mask: np.ndarray, message: str
) -> None:
    few = Dataset(samples(8)[0], None, "data", mask)
    with pytest.raises(BadInputError, match=message):
        snncc.compile(net, few, patch_mask=PATCHES, **OPTIONS)


def test_a_session_has_two_inputs_and_needs_only_the_image(compiled: snncc.CompiledModel) -> None:
    session = snncc.Session(compiled)
    names = [(entry.name, entry.shape, entry.type) for entry in session.get_inputs()]
    assert names == [
        ("x", ["N", 2, 12, 8], "tensor(uint8)"),
        ("mask", ["N", 1, 3, 2], "tensor(uint8)"),
    ]
    pixels, mask = samples(4)
    ones = {"x": pixels, "mask": np.ones(mask.shape)}
    (bare,), (whole,), (part,) = (
        session.run(None, feed) for feed in (pixels, ones, {**ones, "mask": mask.numpy()})
    )
    np.testing.assert_array_equal(bare, whole)
    assert not np.array_equal(bare, part)


@pytest.mark.parametrize("feed", [{"mask": None}, {"x": None, "masks": None}, {}])
def test_a_feed_of_other_names_is_refused(compiled: snncc.CompiledModel, feed: Any) -> None:
    with pytest.raises(UsageError, match="the network takes 'x' and 'mask'"):
        snncc.Session(compiled).run(None, feed)


def test_it_runs_the_same_from_its_file(compiled: snncc.CompiledModel, tmp_path: Any) -> None:
    pixels, mask = samples(4)
    again = snncc.Session(compiled.save(tmp_path / "net.snn"))
    feed = {"x": pixels, "mask": mask.numpy()}
    expected = snncc.Session(compiled).run(None, feed)[0]
    np.testing.assert_array_equal(again.run(None, feed)[0], expected)
    manifest = {**compiled.manifest, "input": {**compiled.manifest["input"], "patches": [3, 1]}}
    edited = snncc.CompiledModel(compiled.program, manifest)
    with pytest.raises(BadInputError, match=r"input\.patches not as in the program"):
        edited.save(tmp_path / "edited.snn")


# -- what is refused ------------------------------------------------------------------------


def vanilla() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), IntegerFire(4), nn.Flatten(), nn.Linear(180, 2))


def uncovered() -> nn.Module:
    return nn.Sequential(SpikeSparseConv2d(2, 3, 3), IntegerFire(4))


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fire = SpikeSparseConv2d(2, 3, 3, padding=1), LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.fire(self.conv(x).unsqueeze(0).repeat(2, 1, 1, 1, 1)).mean(0)


def norm_of_spikes() -> nn.Module:
    layers = (SpikeSparseConv2d(2, 3, 1), IntegerFire(4), SparseBatchNorm2d(3))
    return nn.Sequential(*layers, SpikeSparseConv2d(3, 3, 3, padding=1), IntegerFire(4))


@pytest.mark.parametrize(
    ("build", "options", "kind", "message"),
    [
        (vanilla, {}, UsageError, "Sequential has no layer that takes a patch mask"),
        (uncovered, {}, UsageError, r"patch_mask=\(3, 2\): .*must divide height and width"),
        (Stream, {"patch_mask": (5, 2)}, UsageError, r"stem\.0.*one sample is \[4, 12, 8\]"),
        (Stream, {"patch_mask": (0, 2)}, UsageError, r"patch_mask=\(0, 2\): H,W is expected"),
        (Stream, {"patch_mask": 3}, UsageError, "patch_mask=3: H,W is expected"),
        (
            Stream,
            {"input": InputOptions(mode="f32", range=(-2.0, 2.0))},
            UsageError,
            "patch_mask is for raw pixels: give input.mean and input.std, or input.mode='u8'",
        ),
        (Remembering, {}, UnsupportedModelError, r"neurons with memory \(fire\) do not go togeth"),
        (
            norm_of_spikes,
            {"no_neuron_between": "merge"},
            UnsupportedModelError,
            "without a neuron between",
        ),
    ],
)
def test_what_has_no_masked_form_is_refused(
    build: Callable[[], nn.Module], options: dict[str, Any], kind: type[SnnccError], message: str
) -> None:
    with pytest.raises(kind) as error:
        snncc.compile(build().eval(), **{**OPTIONS, "patch_mask": PATCHES, **options})
    assert re.search(message, str(error.value), re.DOTALL)


def test_a_file_that_stands_alone_has_no_mask_to_keep(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match=r"^patch_mask needs the network's module"):
        snncc.compile(tmp_path / "net.onnx", patch_mask=PATCHES)


def test_check_judges_the_masked_network() -> None:
    options = {"input_shape": (2, 12, 8), "no_neuron_between": "merge"}
    assert not check(norm_of_spikes(), **options).faults
    assert check(norm_of_spikes(), patch_mask=PATCHES, **options).faults
