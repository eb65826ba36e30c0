"""Products of matrices where the library's way is a slow one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NARROW = 8  # outputs: from 16 on the usual product is as fast
MANY = 1024  # rows: with fewer, what a call costs is more than what it saves


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias`` of G layers side by side: [G, B, in], [G, in, out], [G, 1, out].

    Many rows that all layers read, [B, in], are read once, by one layer of all their outputs: a product
    of G copies makes G gradients of them, which are then added up (9.6 ms in place of 5.3, for four
    experts at 2,048 rows).

    On a CPU few outputs of many rows are computed transposed: the same numbers to rounding, in a
    third of the time. A network's last layer of two outputs took half as long as a hidden one of 64.
    """
    if x.dim() == 2 and len(x) >= MANY:
        copies, width, out = weight.shape
        joined = weight.movedim(0, 1).reshape(1, width, copies * out)
        answer = affine(x.unsqueeze(0), joined, bias.reshape(1, 1, copies * out))
        return answer.unflatten(-1, (copies, out)).squeeze(0).movedim(1, 0)
    if x.dim() == 2:
        x = x.expand(len(weight), *x.shape)
    narrow = weight.shape[-1] <= NARROW and x.shape[-2] >= MANY
    if narrow and _by_hand(x):
        return _Narrow.apply(x, weight) + bias
    return torch.baddbmm(bias, x, weight)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of many small matrices: [..., Q, N], [..., N, M] -> [..., Q, M].

    On a CPU a single row is a sum of products, to the same numbers: the library loops number by number
    over matrices of fewer than 400 products, and took 784 us for a gradient that takes 47.
    """
    if a.shape[-2] == 1 and _by_hand(b):
        return (a.mT * b).sum(-2, keepdim=True)
    return a @ b


def _by_hand(x: Tensor) -> bool:
    """Whether a product of ours may stand in for the library's: on a CPU, in single precision."""
    return not x.is_cuda and not torch.is_autocast_enabled(x.device.type)


class _Narrow(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return (weight.mT @ x.mT).mT

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradient @ weight.mT, (gradient.mT @ x).mT
