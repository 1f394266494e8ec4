from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snncc.errors import UsageError
from snncc.nn import (
    IntegerFire,
    SparseBatchNorm2d,
    SpikeSparseConv2d,
    apply_patch_mask,
    masked,
    random_patch_mask,
)

SEEDS = st.integers(0, 2**31 - 1)
GRIDS = st.tuples(st.integers(1, 3), st.integers(1, 3))
STRIDES = st.sampled_from([1, 2])


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def a_mask(seed: int, n: int, h: int, w: int) -> Tensor:
    """Any zeros and ones, with one active patch at least."""
    mask = (normal(seed, n, 1, h, w) > 0).double()
    mask[0, 0, 0, 0] = 1
    return mask


def is_active(mask: Tensor, x: Tensor) -> Tensor:
    """The reference: position (i, j) lies in patch (i * h // H, j * w // W)."""
    (h, w), (H, W) = mask.shape[2:], x.shape[2:]
    rows, columns = torch.arange(H) * h // H, torch.arange(W) * w // W
    return mask[:, :, rows][:, :, :, columns].bool().expand_as(x)


def a_norm(channels: int, **options: float | None) -> SparseBatchNorm2d:
    norm = SparseBatchNorm2d(channels, **options).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def a_network() -> nn.Sequential:
    """28x28 -> 14x14 -> 7x7, as the masks of a 7x7 grid want it."""
    return nn.Sequential(
        SpikeSparseConv2d(1, 4, 3, padding=1),
        SparseBatchNorm2d(4),
        IntegerFire(4),
        SpikeSparseConv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.Sequential(SparseBatchNorm2d(6), IntegerFire(4)),
        SpikeSparseConv2d(6, 6, 3, stride=2, padding=1, bias=False),
    )


@settings(deadline=None, max_examples=40)  # the first convolution of a process takes a second
@given(grid=GRIDS, patch=GRIDS, stride=STRIDES, seed=SEEDS)
def test_a_masked_convolution_is_the_convolution_with_zeros_written_over_masked_patches(
    grid: tuple[int, int], patch: tuple[int, int], stride: int, seed: int
) -> None:
    torch.manual_seed(seed)
    conv = SpikeSparseConv2d(2, 3, 3, stride=stride, padding=1).double()
    H, W = grid[0] * patch[0], grid[1] * patch[1]
    x, mask = normal(seed, 2, 2, H * stride, W * stride), a_mask(seed, 2, *grid)
    expected = nn.functional.conv2d(x, conv.weight, conv.bias, stride, padding=1)
    expected[~is_active(mask, expected)] = 0
    assert torch.equal(conv(x, mask), expected)


@settings(deadline=None, max_examples=40)  # the first convolution of a process takes a second
@given(grid=GRIDS, patch=st.sampled_from([(2, 1), (1, 3), (2, 2)]), seed=SEEDS)
def test_masked_training_statistics_are_those_of_the_active_positions(
    grid: tuple[int, int], patch: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    norm = a_norm(3, momentum=0.25)
    mask = a_mask(seed, 2, *grid)
    x = 2 + 3 * normal(seed, 2, 3, grid[0] * patch[0], grid[1] * patch[1])
    active = is_active(mask, x)
    positions = x.transpose(0, 1)[active.transpose(0, 1)].reshape(3, -1)
    variance, mean = torch.var_mean(positions, dim=1, correction=0)
    per_channel = [value[:, None, None] for value in (mean, variance, norm.weight, norm.bias)]
    mean_map, variance_map, weight, bias = per_channel
    expected = (x - mean_map) / (variance_map + norm.eps).sqrt() * weight + bias
    torch.testing.assert_close(norm(x, mask), expected.where(active, 0.0))
    torch.testing.assert_close(norm.running_mean, 0.25 * mean)
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * positions.var(dim=1))


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"track_running_stats": False}])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_masked_is_batch_norm(options: dict[str, float | None], training: bool) -> None:
    sparse = a_norm(4, **options).train(training)
    dense = nn.BatchNorm2d(4, **options).double().train(training)
    dense.load_state_dict(sparse.state_dict())
    for seed in range(3):
        x = normal(seed, 2, 4, 6, 6)
        torch.testing.assert_close(sparse(x, torch.ones(2, 1, 3, 3)), dense(x))
    torch.testing.assert_close(sparse.state_dict(), dense.state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_without_a_mask_the_layers_are_the_vanilla_ones_under_the_same_keys(training: bool) -> None:
    sparse = nn.Sequential(SpikeSparseConv2d(2, 4, 3), SparseBatchNorm2d(4)).train(training)
    vanilla = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)).train(training)
    vanilla.load_state_dict(sparse.state_dict())
    x = normal(0, 3, 2, 8, 8).float()
    assert torch.equal(sparse(x), vanilla(x))
    torch.testing.assert_close(sparse.state_dict(), vanilla.state_dict(), rtol=0, atol=0)


def test_masked_evaluation_uses_the_running_statistics() -> None:
    norm = a_norm(3)
    norm(normal(0, 8, 3, 6, 6))
    norm.eval()
    x, mask = normal(1, 2, 3, 6, 6), a_mask(1, 2, 3, 3)
    before = copy.deepcopy(norm.state_dict())
    assert torch.equal(norm(x, mask), norm(x).where(is_active(mask, x), 0.0))
    torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)


@settings(deadline=None, max_examples=40)  # the first convolution of a process takes a second
@given(seed=SEEDS)
def test_the_input_under_a_masked_patch_is_never_seen_and_gets_no_gradient(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(SpikeSparseConv2d(2, 3, 1), SparseBatchNorm2d(3)).double()
    mask = a_mask(seed, 2, 2, 2)
    x = normal(seed, 2, 2, 4, 4).requires_grad_()
    active = is_active(mask, x)
    with masked(net, mask):
        y = net(x)
        y_other = net(x.detach().where(active, 9.0))
    (y * normal(seed + 1, *y.shape)).sum().backward()
    assert torch.equal(y, y_other)
    assert x.grad is not None
    assert not x.grad[~active].any()
    assert x.grad[active].all()


def test_masked_patches_pass_no_gradient_to_the_weights() -> None:
    conv, norm = SpikeSparseConv2d(2, 3, 3, padding=1).double(), a_norm(3)
    x, mask = normal(0, 2, 2, 4, 4), a_mask(0, 2, 2, 2)
    cotangent = normal(1, 2, 3, 4, 4)
    y = conv(x, mask)
    active = is_active(mask, y)
    plain = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    expected = torch.autograd.grad(plain, conv.weight, cotangent.where(active, 0.0))
    torch.testing.assert_close(torch.autograd.grad(y, conv.weight, cotangent), expected)
    bias_gradient = torch.autograd.grad(norm(x[:, [0, 1, 0]], mask), norm.bias, cotangent)
    torch.testing.assert_close(bias_gradient[0], cotangent.where(active, 0.0).sum((0, 2, 3)))


def test_masked_reaches_every_sparse_layer_at_its_own_resolution() -> None:
    torch.manual_seed(0)
    net = a_network()
    mask = random_patch_mask(2, 7, 0.5)
    seen = []
    for layer in net.modules():
        if isinstance(layer, (SpikeSparseConv2d, SparseBatchNorm2d)):
            layer.register_forward_hook(lambda _layer, _inputs, y: seen.append(y))
    with masked(net, mask):
        net(apply_patch_mask(torch.randn(2, 1, 28, 28), mask))
    assert [tuple(y.shape[2:]) for y in seen] == [(28, 28)] * 2 + [(14, 14)] * 2 + [(7, 7)]
    for y in seen:
        assert not y[~is_active(mask, y)].any()
        assert y[is_active(mask, y)].any()


def test_masked_ends_with_its_block_even_by_an_exception_and_nests() -> None:
    net = a_network()
    outer, inner = (random_patch_mask(1, size, 0.0) for size in (7, 1))
    with masked(net, outer):
        with contextlib.suppress(KeyError), masked(net, inner):
            assert net[0].mask is inner
            raise KeyError
        assert net[0].mask is outer
    assert net[0].mask is None


def test_the_mask_given_to_a_layer_goes_before_the_one_of_the_block() -> None:
    conv = SpikeSparseConv2d(1, 1, 1)
    x, mask = torch.ones(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0]]]])
    with masked(conv, 1 - mask):
        assert torch.equal(conv(x, mask) != 0, is_active(mask, x))


@given(
    n=st.integers(1, 4),
    h=st.integers(1, 8),
    w=st.integers(1, 8),
    tenths=st.integers(0, 9),
    seed=SEEDS,
)
def test_a_random_mask_keeps_the_same_number_of_patches_in_every_sample(
    n: int, h: int, w: int, tenths: int, seed: int
) -> None:
    kept = h * w * (10 - tenths) // 10
    generator = torch.Generator().manual_seed(seed)
    if kept == 0:
        with pytest.raises(UsageError, match="leaves no patch"):
            random_patch_mask(n, (h, w), tenths / 10, generator)
        return
    mask = random_patch_mask(n, (h, w), tenths / 10, generator)
    assert mask.shape == (n, 1, h, w)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert mask.sum((1, 2, 3)).tolist() == [kept] * n


def test_a_generator_fixes_the_mask_and_every_patch_is_masked_as_often() -> None:
    first, second = (
        random_patch_mask(4000, 4, 0.5, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert (first.mean(0) - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_the_dtype_of_the_mask_does_not_matter(dtype: torch.dtype) -> None:
    x, mask = torch.randn(2, 3, 4, 4), random_patch_mask(2, 2, 0.5)
    assert torch.equal(apply_patch_mask(x, mask.to(dtype)), apply_patch_mask(x, mask))
    assert apply_patch_mask(x, mask.to(dtype)).dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "where"),
    [
        ((2, 1, 4, 3), "h divides 6"),
        ((2, 1, 3, 12), "w divides 6"),
        ((1, 1, 3, 3), r"give \[2, 1, h, w\]"),
        ((2, 3, 3, 3), r"\[2, 3, 3, 3\] does not cover \[2, 3, 6, 6\]"),
        ((2, 3, 3), "does not cover"),
        ((2, 1, 0, 3), "does not cover"),
    ],
)
def test_a_mask_that_covers_no_whole_patches_is_an_error(
    shape: tuple[int, ...], where: str
) -> None:
    x = torch.zeros(2, 3, 6, 6)
    for layer in (SpikeSparseConv2d(3, 3, 1), SparseBatchNorm2d(3)):
        with pytest.raises(UsageError, match=where):
            layer(x, torch.ones(shape))


@pytest.mark.parametrize(
    ("module", "mask", "message"),
    [
        (nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2), "Conv2d has no layer that takes a mask"),
        (SpikeSparseConv2d(1, 1, 1), torch.ones(1, 2, 2), r"the mask is \[1, 2, 2\]"),
        (SpikeSparseConv2d(1, 1, 1), torch.full((1, 1, 2, 2), 0.5), "other values than 0 and 1"),
        (SparseBatchNorm2d(1), torch.full((1, 1, 2, 2), torch.nan), "other values than 0 and 1"),
    ],
)
def test_masked_takes_sparse_layers_and_a_patch_mask(
    module: nn.Module, mask: Tensor, message: str
) -> None:
    with pytest.raises(UsageError, match=message), masked(module, mask):
        pass


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan"), 0.99])
def test_a_ratio_that_leaves_no_patch_is_an_error(ratio: float) -> None:
    with pytest.raises(UsageError, match="ratio"):
        random_patch_mask(1, 7, ratio)


def test_one_active_position_has_no_statistics() -> None:
    mask = torch.zeros(1, 1, 2, 2)
    mask[0, 0, 1, 1] = 1
    with pytest.raises(UsageError, match="1 active positions"):
        SparseBatchNorm2d(3)(torch.zeros(1, 3, 2, 2), mask)


def test_a_mask_is_no_part_of_the_state_dict() -> None:
    net = a_network()
    keys = list(net.state_dict())
    with masked(net, random_patch_mask(1, 7, 0.5)):
        assert list(net.state_dict()) == keys


def test_a_mask_can_be_an_input_of_an_exported_program() -> None:
    class MaskedNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = a_network()

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            with masked(self.net, mask):
                return self.net(apply_patch_mask(x, mask))

    net = MaskedNetwork().eval()
    first, second = ((torch.randn(2, 1, 28, 28), random_patch_mask(2, 7, 0.5)) for _ in range(2))
    exported = torch.export.export(net, first).module()
    torch.testing.assert_close(exported(*second), net(*second))
    assert net.net[0].mask is None
