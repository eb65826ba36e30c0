"""Peers: what is installed is offered, what isn't says how to get it, and all find an effect that is there."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks.models import peers
from benchmarks.models.peers import PEERS
from benchmarks.models.worlds import case
from campaigns.errors import EnvironmentProblem
from campaigns.objective import value_and_cost


def test_a_missing_library_is_named_and_left_out(monkeypatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda library: library != "causalml" or None)
    assert list(PEERS) == ["econml causal forest", "econml x-learner"]
    assert len(PEERS) == 2
    assert "causalml x-learner" in PEERS
    assert "nobody's forest" not in PEERS
    with pytest.raises(EnvironmentProblem, match="causalml isn't installed; make peers"):
        PEERS["causalml x-learner"]


@pytest.mark.parametrize("name", ["econml x-learner", "causalml x-learner"])
def test_an_x_learner_finds_who_responds(name: str, monkeypatch) -> None:
    if not find_spec(name.split()[0]):
        pytest.skip(f"{name.split()[0]} isn't installed (make peers)")
    monkeypatch.setattr(peers, "_tuned", lambda x, value, seed: peers.regressor(seed, 8, 60))
    made = case("bonus", 4000, seed=1, units=2000)
    found = PEERS[name](made, 1)(made.units)
    true = value_and_cost(made.truth, made.campaign)[0]
    assert found.shape == true.shape
    assert np.all(found[:, 0] == 0)
    for arm in (1, 2):
        assert np.corrcoef(found[:, arm], true[:, arm])[0, 1] > 0.4
