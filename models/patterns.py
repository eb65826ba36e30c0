"""Adaptive patterns over tokens: the blocks of APEM.

Paper: "Adaptive Pattern Extraction Multi-Task Learning for Multi-Step Conversion Estimations"
(equations 11-19). P patterns look at T tokens of width d, so that the cost is linear in the tokens.
Where the paper is silent we chose:

* Heads split the width (of d / heads each) and the points, as in multi-head attention elsewhere.
* The residual of eq. 17: the output has P rows and the tokens T. In the first layer the selected
  points take the tokens' place, as in the Set Transformer that the paper builds on (Lee et al. 2019,
  eq. 6); in later layers there are P rows on both sides.
* Eq. 13's schedule is illegible; it starts at 10 and ends at 1e-3, as printed, linearly in the
  steps of training. How many is a setting: the paper's 500,000 steps suit its 38 million rows.
* The indicators of eq. 18 are a task's own, the projections of its attention a layer's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import MLP, uniform

SOFT, SHARP = 10.0, 1e-3  # the widths gamma of eq. 13, first and last
SHARPEN = 20_000  # steps of training from one to the other


def smooth_step(z: Tensor, gamma: Tensor | float) -> Tensor:
    """f_D of eq. 13: 0 below -gamma / 2, 1 above gamma / 2, a cubic with level ends between."""
    inside = (z / gamma).clamp(-0.5, 0.5)
    return -2.0 * inside.pow(3) + 1.5 * inside + 0.5


class Selector(nn.Module):
    """The dynamic selector of eq. 11-13, which patterns a row needs: [N, T, d] -> [N, P] in [0, 1].

    It sharpens with training: a net calls :func:`advance` at each step.

    Args:
        width: T * d.
        steps: Steps of training until it is as sharp as it gets.
    """

    step: Tensor

    def __init__(self, width: int, hidden: int, points: int, steps: int) -> None:
        super().__init__()
        self.network = MLP(width, [hidden], points)
        self.steps = steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def gamma(self) -> Tensor:
        """The width of the smooth step, by now."""
        return SOFT + (SHARP - SOFT) * (self.step / self.steps).clamp(max=1.0)

    def forward(self, tokens: Tensor) -> Tensor:
        return smooth_step(self.network(tokens.flatten(-2)).float(), self.gamma()).to(tokens.dtype)


def advance(net: nn.Module) -> None:
    """Count a step of training in every selector of a net."""
    for module in net.modules():
        if isinstance(module, Selector):
            module.step.add_(1)


class Attention(nn.Module):
    """Multi-head attention of eq. 15-16 with queries as they come: [N, Q, d], [N, T, d] -> [N, Q, d].

    Queries [Q, d] are the same for all rows.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.read = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        keys, values = (self._split(each) for each in self.read(tokens).chunk(2, dim=-1))
        asked = self._split(queries).to(keys.dtype).expand(len(tokens), -1, -1, -1)
        found = functional.scaled_dot_product_attention(asked, keys, values)
        return self.out(found.transpose(-3, -2).flatten(-2))

    def _split(self, x: Tensor) -> Tensor:
        """[..., T, d] -> [..., heads, T, d / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class Generator(nn.Module):
    """Adaptive sample-wise representation generator, a layer: [N, T, d] -> [N, P, d] (eq. 14-17).

    Args:
        tokens: T.
        points: P, the inducing points; 0 is the ablation: self-attention of the tokens, [N, T, d],
            at a cost that is quadratic in them.
        hidden: Width inside the selector; 0 leaves it out.
        steps: As of :class:`Selector`.
        first: Whether the residual is of the selected points; else of the tokens, P of them.
    """

    def __init__(
        self, tokens: int, width: int, points: int, heads: int, hidden: int, steps: int, first: bool
    ) -> None:
        super().__init__()
        self.first = first
        self.points = uniform(points, width, fan=1) if points else None
        self.query = None if points else nn.Linear(width, width, bias=False)
        selects = bool(points and hidden)
        self.selector = Selector(tokens * width, hidden, points, steps) if selects else None
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.query is not None:
            return self.norm(tokens + self.attention(self.query(tokens), tokens))
        points = self.points
        if self.selector is not None:
            points = self.selector(tokens)[..., None] * points  # eq. 14
        residual = points if self.first else tokens
        return self.norm(residual + self.attention(points, tokens))


class PatternSelector(nn.Module):
    """What each task asks of the patterns, a layer: [N, P, d] -> [N, K, d] (eq. 18)."""

    def __init__(self, tasks: int, width: int, heads: int) -> None:
        super().__init__()
        self.indicator = uniform(tasks, width, fan=1)
        self.attention = Attention(width, heads)

    def forward(self, patterns: Tensor) -> Tensor:
        return self.attention(self.indicator, patterns)


class PatternEncoder(nn.Module):
    """An encoder that keeps one token a feature, as MTMT's must: [B, T * d] -> [B, K, T * d].

    A layer of patterns as above; then each feature asks them what they know of it for each task, by
    its own token plus the task's indicator. Tokens see each other through P patterns and back (the
    induced attention of Lee et al. 2019, eq. 9-10), at a cost linear in T.
    """

    def __init__(
        self, tasks: int, tokens: int, width: int, points: int, hidden: int, steps: int = SHARPEN
    ) -> None:
        super().__init__()
        heads = 1 if width % 2 else 2
        self.tokens = tokens
        self.generator = Generator(tokens, width, points, heads, hidden, steps, first=True)
        self.indicator = uniform(tasks, 1, width, fan=1)
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.unflatten(-1, (self.tokens, -1))
        asked = tokens.unsqueeze(1) + self.indicator  # [B, K, T, d]
        told = self.attention(asked.flatten(1, 2), self.generator(tokens))
        return self.norm(tokens.unsqueeze(1) + told.unflatten(1, (-1, self.tokens))).flatten(2)
