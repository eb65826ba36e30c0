"""The same declarations as Ray Tune domains."""

from __future__ import annotations

import pytest

from models.nets.mtmt import MTMTConfig
from models.space import configure, searched, tune_space
from models.training import TrainConfig


@pytest.mark.slow
@pytest.mark.parametrize("config", [MTMTConfig, TrainConfig])
def test_what_tune_draws_is_allowed(config):
    space = tune_space(config)
    assert set(space) == set(searched(config))
    for _ in range(20):
        configure(config, {name: domain.sample() for name, domain in space.items()}, "search")
