"""Curves over a dose that rise by construction: I-splines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

DEGREE = 3  # of the curves: smooth to the eye, two derivatives everywhere


def i_splines(x: Tensor, pieces: int) -> Tensor:
    """Functions that rise from 0 at x = 0 to 1 at x = 1, each over its own part: [...] -> [..., J].

    Ramsay 1988, "Monotone regression splines in action" (Statistical Science 3:4): integrals of
    M-splines, by the identity that I_j is the sum of the B-splines of one order more after the j-th,
    over even knots. Sums of them with weights that are not negative rise; J = ``pieces`` + 2.

    Args:
        x: In 0 to 1; beyond, the nearer end.
        pieces: Cubic polynomials that a curve is joined from.
    """
    x = x.float().clamp(0.0, 1.0)[..., None]
    inner = torch.linspace(0.0, 1.0, pieces + 1, device=x.device)
    knots = functional.pad(inner, (DEGREE, DEGREE))
    knots[-DEGREE:] = 1.0
    place = torch.searchsorted(inner[1:-1], x, right=True)  # the last piece has its right end too
    basis = (torch.arange(len(knots) - 1, device=x.device) == place + DEGREE).float()
    for degree in range(1, DEGREE + 1):  # Cox-de Boor
        low, high = knots[: -degree - 1], knots[degree + 1 :]
        width = knots[degree:] - knots[:-degree]
        width = torch.where(width > 0, width, 1.0)  # 0 / 0 is 0
        rise = (x - low) / width[:-1] * basis[..., :-1]
        basis = rise + (high - x) / width[1:] * basis[..., 1:]
    return basis.flip(-1).cumsum(-1).flip(-1)[..., 1:]
