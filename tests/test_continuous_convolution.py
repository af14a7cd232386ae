"""A kernel that is a function of the offset: the same operator on every grid."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from nfops.continuous_convolution import ContinuousConvolution, Hats, prolong, restrict

WIDTHS = {1: (1.5,), 2: (1.5, 2.4), 3: (1.5, 2.4, 2.0)}


def convolution(dims: int, inputs: int = 2, outputs: int = 3) -> ContinuousConvolution:
    torch.manual_seed(1)
    made = ContinuousConvolution(inputs, outputs, dims).double()
    made.bias.data.normal_()
    return made.requires_grad_(False)


def hats(spacing: tuple[float, ...]) -> Hats:
    return Hats(WIDTHS[len(spacing)], spacing)


def integral(made: ContinuousConvolution, turns: float, place: torch.Tensor) -> torch.Tensor:
    """The kernel's integral against cos(2 pi turns x), in 1-D, worked out by hand: (outputs, points)."""
    (width,) = WIDTHS[1]
    waves = [torch.cos(2 * torch.pi * turns * (place + width * b)) for b in (-1, 0, 1)]
    return (
        torch.einsum("oib,bn->on", made.weight, torch.stack(waves)) * np.sinc(turns * width) ** 2 + made.bias[:, None]
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_on_a_grid_of_its_width_it_is_a_plain_convolution(dims):
    made = convolution(dims)
    values = torch.randn(2, 2, *(9, 8, 7)[:dims], dtype=torch.float64)
    plain = (functional.conv1d, functional.conv2d, functional.conv3d)[dims - 1]
    assert torch.allclose(made(values, hats(WIDTHS[dims])), plain(values, made.weight, made.bias, padding=1))


@pytest.mark.parametrize(("dims", "times"), [(1, (3,)), (2, (2, 3)), (2, (1, 4)), (3, (2, 1, 2))])
def test_dilation_after_smoothing_is_the_sampled_kernel(dims, times):
    made = convolution(dims)
    spacing = tuple(w / m for w, m in zip(WIDTHS[dims], times, strict=True))
    values = torch.randn(1, 2, *(13, 12, 11)[:dims], dtype=torch.float64)
    kernel = made.sampled(hats(spacing))
    plain = (functional.conv1d, functional.conv2d, functional.conv3d)[dims - 1]
    dense = plain(values, kernel, made.bias, padding=tuple(n // 2 for n in kernel.shape[2:]))
    assert torch.allclose(made(values, hats(spacing)), dense)


@pytest.mark.parametrize("ratio", [1.0, 1.37, 2.0, 2.6, 5.0])
def test_a_constant_stays_what_it_is_at_every_spacing(ratio):
    made = convolution(2)
    spacing = tuple(w / ratio for w in WIDTHS[2])
    inner = made(torch.ones(1, 2, 48, 48, dtype=torch.float64), hats(spacing))[..., 15:33, 15:33]
    wanted = made.weight.sum(dim=(1, 2, 3)) + made.bias
    assert torch.allclose(inner, wanted.reshape(1, -1, 1, 1).expand_as(inner))


def test_finer_grids_come_near_the_integral_by_the_square_of_their_spacing():
    made = convolution(1, inputs=1)
    errors = []
    for ratio in (2, 4, 8, 16):
        step = WIDTHS[1][0] / ratio
        place = (torch.arange(40 * ratio, dtype=torch.float64) - 20 * ratio) * step
        values = torch.cos(2 * torch.pi * 0.11 * place)
        found = made(values[None, None], hats((step,)))[0]
        inner = slice(5 * ratio, -5 * ratio)
        errors.append(float((found - integral(made, 0.11, place))[:, inner].abs().max()))
    assert all(3.8 < coarse / fine < 4.2 for coarse, fine in itertools.pairwise(errors))


def test_whole_and_broken_ratios_agree():
    made = convolution(1, inputs=1)
    found = []
    for ratio in (4.0, 4.3):
        step = WIDTHS[1][0] / ratio
        place = (torch.arange(201, dtype=torch.float64) - 100) * step
        at_zero = made(torch.cos(2 * torch.pi * 0.1 * place)[None, None], hats((step,)))[0, :, 100]
        found.append(at_zero)
    assert torch.allclose(found[0], found[1], atol=0.02)


def test_hats_sum_to_one_and_lie_at_the_width():
    (samples,) = Hats((2.0,), (1.0,)).samples
    assert torch.allclose(samples.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert samples.argmax(dim=1).tolist() == [1, 3, 5]


def test_a_grid_coarser_than_the_kernel_is_refused():
    with pytest.raises(ValueError, match="too coarse"):
        hats((3.0, 2.4))


def test_means_over_cells_and_lines_between_them():
    values = torch.arange(12.0).reshape(1, 1, 12)
    means = restrict(values, (4,), (3,))
    assert means.flatten().tolist() == [1, 4, 7, 10]
    assert torch.allclose(prolong(means, (12,))[..., 1:-1], values[..., 1:-1])
