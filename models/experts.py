"""Mixtures of experts over experts of any kind: gates, and levels of progressive extraction.

G experts side by side answer [G, N, d]; a gate's softmax weighs them. See :mod:`models.layers` for
the sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import softmax


def mix(gates: Tensor, experts: Tensor) -> Tensor:
    """Each task's mean of the experts by its own gate: [K, N, G] logits, [G, N, d] -> [K, N, d]."""
    return torch.einsum("kng,gnd->knd", softmax(gates), experts)


class Extraction(nn.Module):
    """A level of progressive layered extraction, "customized gate control" (Tang et al. 2020, eq. 1-6).

    A task's gate weighs its own experts and the shared ones; the shared gate, which levels before
    the last have, weighs all. What a task's own experts learn reaches another task by no way but the
    shared gate of a level before the last.

    Args:
        tasks: K.
        own, shared: Experts of each task, and of all.
        experts: Answers [K * own + shared, N, d]: each task's in turn, then the shared.
        gate: Answers [K, N, own + shared].
        shared_gate: Answers [1, N, K * own + shared]; None at the last level.
    """

    places: Tensor

    def __init__(
        self,
        tasks: int,
        own: int,
        shared: int,
        *,
        experts: nn.Module,
        gate: nn.Module,
        shared_gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.experts, self.gate, self.shared_gate = experts, gate, shared_gate
        unseen, others = own + shared, range(own, own + shared)
        places = [[unseen] * (tasks * own) + [*others] for _ in range(tasks)]
        for task, row in enumerate(places):
            row[task * own : (task + 1) * own] = range(own)
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def forward(self, x: object) -> Tensor:
        """[K, N, d], and the shared stream as a last one ([K + 1, N, d]) where it has a gate."""
        seen = functional.pad(softmax(self.gate(x)), (0, 1))  # and a 0 for experts that aren't
        gates = seen.gather(-1, self.places[:, None].expand(-1, seen.shape[1], -1))
        if self.shared_gate is not None:
            gates = torch.cat([gates, softmax(self.shared_gate(x))])
        return torch.einsum("kng,gnd->knd", gates, self.experts(x))


class Streams(nn.Module):
    """A stacked network whose copies each read one of several streams: [S, N, d] -> [G, N, out].

    Args:
        network: Takes [G, N, d].
        reads: The stream that each copy reads, [G].
    """

    reads: Tensor

    def __init__(self, network: nn.Module, reads: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("reads", torch.tensor(reads), persistent=False)

    def forward(self, streams: Tensor) -> Tensor:
        return self.network(streams.index_select(0, self.reads))
