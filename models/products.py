"""Products of matrices where the library's way is a slow one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NARROW = 8  # outputs: from 16 on the usual product is as fast
MANY = 1024  # rows: with fewer, what a call costs is more than what it saves


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias`` of G layers side by side: [G, B, in], [G, in, out], [G, 1, out].

    On a CPU few outputs of many rows are computed transposed: the same numbers to rounding, in a
    third of the time. A network's last layer of two outputs took half as long as a hidden one of 64.
    """
    narrow = weight.shape[-1] <= NARROW and x.shape[-2] >= MANY and not x.is_cuda
    if narrow and not torch.is_autocast_enabled(x.device.type):
        return _Narrow.apply(x, weight) + bias
    return torch.baddbmm(bias, x, weight)


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
