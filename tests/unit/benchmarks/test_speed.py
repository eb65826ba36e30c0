"""The benchmark of speed measures every net, and counts the matrix products of a whole step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.models.speed import ONE_FACTOR, draw, input_seconds, measure, nets, product_rate
from models.catalog import catalog

CPU = torch.device("cpu")


def test_every_net_has_a_shape_that_it_takes():
    assert set(nets()) == {name for name, entry in catalog().items() if not entry.learner}


def test_products_of_a_step_are_counted_forward_and_backward():
    found = {rows: measure("t_learner", ONE_FACTOR, draw(rows), CPU, 1, 0.0) for rows in (64, 128)}
    assert found[128]["flops"] == pytest.approx(2 * found[64]["flops"])
    weights = found[64]["weights"] - 4 * 20 * 8  # embeddings are looked up, not multiplied
    assert 4 * 64 * weights < found[64]["flops"] < 6.5 * 64 * weights
    assert found[64]["step"] > 0
    assert found[64]["products"] > 0


def test_the_machine_and_the_input_are_timed():
    assert np.isfinite(product_rate(CPU))
    assert 0 < input_seconds(64, CPU, 0.0) < 0.1
