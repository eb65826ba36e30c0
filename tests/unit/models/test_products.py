"""Products that are computed in a way of our own, to the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.products import MANY, NARROW, affine, matmul


def inputs(rows: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    sizes = ((3, rows, 5), (3, 5, outputs), (3, 1, outputs))
    x, weight, bias = (torch.randn(size, requires_grad=True) for size in sizes)
    return x, weight, bias


@pytest.mark.parametrize("outputs", [1, NARROW, NARROW + 1])
@pytest.mark.parametrize("rows", [7, MANY])
def test_layers_and_their_gradients_are_those_of_a_plain_product(rows: int, outputs: int) -> None:
    given = inputs(rows, outputs)
    x, weight, bias = given
    found, plain = affine(*given), x @ weight + bias
    direction = torch.randn_like(plain)
    torch.testing.assert_close(found, plain)
    gradients = torch.autograd.grad(found, given, direction)
    expected = torch.autograd.grad(plain, given, direction)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("rows", [7, MANY])
def test_what_all_layers_read_is_read_as_by_each_of_them(rows: int, outputs: int) -> None:
    x, weight, bias = inputs(rows, outputs)
    given = (x[0].detach().requires_grad_(), weight, bias)
    found, plain = affine(*given), given[0] @ weight + bias
    direction = torch.randn_like(plain)
    torch.testing.assert_close(found, plain)
    gradients = torch.autograd.grad(found, given, direction)
    expected = torch.autograd.grad(plain, given, direction)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("queries", [1, 3])
def test_small_products_and_their_gradients_are_the_librarys(queries: int) -> None:
    torch.manual_seed(0)
    sizes = ((2, queries, 5), (7, 2, 5, 4))  # the first is the same for all rows
    given = tuple(torch.randn(size, requires_grad=True) for size in sizes)
    found, plain = matmul(*given), given[0] @ given[1]
    direction = torch.randn_like(plain)
    torch.testing.assert_close(found, plain)
    gradients = torch.autograd.grad(found, given, direction)
    torch.testing.assert_close(gradients, torch.autograd.grad(plain, given, direction))


def test_members_of_an_ensemble_have_their_own_layers_and_gradients() -> None:
    members = [inputs(MANY, 2) for _ in range(2)]
    members[1] = tuple(-0.5 * each.detach() for each in members[0])
    stacked = [
        torch.stack([one.detach() for one in each]).requires_grad_() for each in zip(*members)
    ]
    found = torch.vmap(affine)(*stacked)
    expected = torch.stack([x @ weight + bias for x, weight, bias in members])
    torch.testing.assert_close(found, expected)
    plain = stacked[0] @ stacked[1] + stacked[2]
    gradients = torch.autograd.grad(found.square().sum(), stacked)
    torch.testing.assert_close(
        gradients, torch.autograd.grad(plain.square().sum(), stacked), rtol=1e-4, atol=1e-2
    )


def test_half_precision_keeps_its_own_product() -> None:
    x, weight, bias = inputs(MANY, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = affine(x, weight, bias)
    found.float().sum().backward()
    assert found.dtype == torch.bfloat16
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert matmul(x[:, :1], weight).dtype == torch.bfloat16
