"""Chains of outcomes, each of which needs the one before: visit, then cart, then purchase.

P(step_j) = prod_{i <= j} P(step_i | step_{i-1}) (ESMM, Ma et al. 2018). All in the log domain, so that
rare steps keep finite gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.data import Shape

NEARLY_SURE = -1e-6  # greatest log-probability of a step: its logit stays finite


def chain(shape: Shape) -> tuple[int, ...]:
    """The steps of a campaign's chain: the binary outcomes of its sequence, in order.

    An amount at the end of a sequence (visit, conversion, spend) is no event that another could
    follow: it is answered beside the chain.
    """
    return tuple(k for k in shape.sequence if shape.outcomes[k] == "binary")


def chained(links: Tensor, steps: Tensor) -> Tensor:
    """Logits of reaching each step in place of those given the step before: [..., K] -> [..., K]."""
    reached = logit_of_log(log_reached(links[..., steps]))
    return links.index_copy(-1, steps, reached)


def given_before(rates: Tensor, steps: Tensor | Sequence[int]) -> Tensor:
    """The rate of each step among those who took the step before, [J], of outcomes' rates [K]."""
    own = rates[steps]
    before = torch.cat([torch.ones_like(own[:1]), own[:-1]])
    return own / before.clamp(min=1e-9)


def log_reached(conditional: Tensor) -> Tensor:
    """Log-probability that each step is reached, [..., J], of its logits given the one before."""
    return functional.logsigmoid(conditional).cumsum(-1)


def logit_of_log(log_probability: Tensor) -> Tensor:
    """The logit of a probability given by its logarithm, without leaving the log domain."""
    safe = log_probability.clamp(max=NEARLY_SURE)
    return safe - torch.log(-torch.expm1(safe))
