"""Gated mixtures compute what loops over tasks and experts would."""

from __future__ import annotations

import pytest
import torch

from models.experts import Extraction, Streams, mix
from models.layers import Stacked

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_mix_weighs_experts_by_each_tasks_gate():
    gates, experts = torch.randn(2, 5, 3), torch.randn(3, 5, 4)
    weights = gates.softmax(-1)
    expected = [sum(weights[k, :, e, None] * experts[e] for e in range(3)) for k in range(2)]
    torch.testing.assert_close(mix(gates, experts), torch.stack(expected))


def level(shared_gate: bool) -> Extraction:
    return Extraction(
        2,
        3,
        2,
        experts=Stacked(8, 6, 4),
        gate=Stacked(2, 6, 5),
        shared_gate=Stacked(1, 6, 8) if shared_gate else None,
    )


@pytest.mark.parametrize("shared_gate", [True, False])
def test_a_task_hears_its_own_experts_and_the_shared_ones(shared_gate):
    extraction, x = level(shared_gate), torch.randn(5, 6)
    found, experts, gates = extraction(x), extraction.experts(x), extraction.gate(x).softmax(-1)
    for task in range(2):
        heard = [*experts[3 * task : 3 * task + 3], *experts[6:]]
        expected = sum(gates[task, :, place, None] * e for place, e in enumerate(heard))
        torch.testing.assert_close(found[task], expected)
    assert len(found) == 2 + shared_gate
    if shared_gate:
        weights = extraction.shared_gate(x)[0].softmax(-1)
        every = sum(weights[:, place, None] * e for place, e in enumerate(experts))
        torch.testing.assert_close(found[2], every)


def test_a_task_teaches_no_expert_of_another():
    extraction = level(shared_gate=False)
    extraction(torch.randn(5, 6))[0].square().sum().backward()
    taught = extraction.experts.weight.grad.abs().sum((1, 2)) > 0
    assert taught.tolist() == [True] * 3 + [False] * 3 + [True] * 2


def test_streams_go_to_the_copies_that_read_them():
    network, streams = Stacked(3, 4, 2), torch.randn(2, 5, 4)
    read = Streams(network, [1, 0, 1])(streams)
    for copy, stream in enumerate([1, 0, 1]):
        expected = streams[stream] @ network.weight[copy] + network.bias[copy]
        torch.testing.assert_close(read[copy], expected)
