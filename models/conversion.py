"""What conversion nets share: the treatment as one more field.

A conversion net reads the arm's embedding beside the features. Its first layer adds what it makes of
the features to what it makes of the arm, so the features are read once for all arms, and training
computes the given arm only. From there on a row under each of A arms is A rows: N stands for B * A
rows (every arm, the arm fastest) or B rows (the given one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.data import Batch, Shape
from models.layers import ArmEmbedding, CategoryEmbedding, Stacked, StackedMLP, uniform
from models.nets.base import Net


@dataclass(frozen=True)
class Treated:
    """Rows with a treatment among their fields.

    Attributes:
        features: [B, F], or [G, B, F] where each of G networks embeds for itself.
        arms: [A, d] or [G, A, d].
        given: 1 at the arm of each row, else 0, [B, A]; None asks for every arm.
    """

    features: Tensor
    arms: Tensor
    given: Tensor | None = None


class TreatedFields(nn.Module):
    """Numeric features, embedded categories and embedded arms.

    Args:
        embedding: Width of a category's or an arm's embedding.
        copies: Networks with embeddings of their own; 1 shares them.

    Attributes:
        widths: F = F_n + F_c * d, and d.
    """

    def __init__(self, shape: Shape, embedding: int, copies: int = 1) -> None:
        super().__init__()
        self.copies = copies
        self.widths = (shape.numeric + len(shape.categories) * embedding, embedding)
        width = copies * embedding
        self.embedding = CategoryEmbedding(shape.categories, width) if shape.categories else None
        self.arms = ArmEmbedding(shape.levels, width)

    def forward(self, x_num: Tensor, x_cat: Tensor) -> Treated:
        """Every arm of every row."""
        arms = self._own(self.arms())
        if self.embedding is None:
            return Treated(x_num, arms)
        embedded = self._own(self.embedding(x_cat)).flatten(-2)
        return Treated(torch.cat([x_num.expand(*embedded.shape[:-1], -1), embedded], -1), arms)

    def given(self, batch: Batch) -> Treated:
        """Each row under the arm that it was given."""
        every = self(batch.x_num, batch.x_cat)
        given = functional.one_hot(batch.arm, every.arms.shape[-2]).to(every.features.dtype)
        return Treated(every.features, every.arms, given)

    def _own(self, embedded: Tensor) -> Tensor:
        """[..., G * d] -> [G, ..., d]."""
        if self.copies == 1:
            return embedded
        return embedded.unflatten(-1, (self.copies, -1)).movedim(-2, 0)


class TreatedInput(nn.Module):
    """G linear layers over features and treatment, side by side: -> [G, N, out]."""

    def __init__(self, copies: int, widths: tuple[int, int], out: int) -> None:
        super().__init__()
        self.features = Stacked(copies, widths[0], out)
        self.arm = uniform(copies, widths[1], out, fan=widths[1])

    def forward(self, rows: Treated) -> Tensor:
        read, arms = self.features(rows.features), rows.arms @ self.arm
        if rows.given is not None:
            return torch.baddbmm(read, rows.given.expand(len(arms), -1, -1), arms)
        return (read.unsqueeze(2) + arms.unsqueeze(1)).flatten(1, 2)


class TreatedMLP(nn.Sequential):
    """G MLPs over features and treatment, side by side: -> [G, N, out]; at least one hidden layer."""

    def __init__(
        self,
        copies: int,
        widths: tuple[int, int],
        hidden: Sequence[int],
        out: int,
        dropout: float = 0.0,
    ) -> None:
        first: list[nn.Module] = [TreatedInput(copies, widths, hidden[0]), nn.ReLU()]
        first += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*first, StackedMLP(copies, hidden[0], hidden[1:], out, dropout))


class ConversionNet(Net):
    """Base of the nets that read the treatment as a field; a subclass makes :meth:`answer`."""

    fields: TreatedFields

    def answer(self, rows: Treated) -> Tensor:
        """Links less :attr:`start` of rows under their treatments, [N, K]."""
        raise NotImplementedError

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        return self.answer(self.fields(x_num, x_cat)).unflatten(0, (len(x_num), -1))

    def factual(self, batch: Batch) -> Tensor:
        return self.answer(self.fields.given(batch))
